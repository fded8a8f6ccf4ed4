"""Settings of the backend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.settings import Address, Targets, TrainingSettings


class BackendSettings(TrainingSettings):
    """What the backend reads from its environment."""

    backend_address: Address = "127.0.0.1:50051"
    """Where the backend listens; port 0 means any free one."""

    training_mode: Literal["local", "host"] = "local"
    """Whether trainings run in the backend itself or on training hosts."""

    training_hosts: Targets = Field(
        default=("127.0.0.1:50052",), validation_alias="TRAINING_HOST_SERVICE_URL"
    )
    """Where training hosts listen, comma separated; the least busy one gets the next training."""

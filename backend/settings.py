"""Settings of the backend."""

from __future__ import annotations

from pydantic import Field

from shared.settings import Address, ProcessSettings


class BackendSettings(ProcessSettings):
    """What the backend reads from its environment."""

    backend_address: Address = "127.0.0.1:50051"
    """Where the backend listens; port 0 means any free one."""

    training_workers: int = Field(default=1, ge=1, le=64)
    """Trainings that run at once."""

    training_queue: int = Field(default=8, ge=0, le=1000)
    """Trainings that may wait for a worker; more are refused with RESOURCE_EXHAUSTED."""

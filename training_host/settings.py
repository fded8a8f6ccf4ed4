"""Settings of the training host."""

from __future__ import annotations

from shared.settings import Address, TrainingSettings


class TrainingHostSettings(TrainingSettings):
    """What the training host reads from its environment."""

    training_host_address: Address = "127.0.0.1:50052"
    """Where the training host listens; port 0 means any free one."""

"""Started: what a host answers to the start of work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """What a host answered to a start."""

    operation_id: str
    """The host's operation."""
    instance: str
    """The process that took it; empty if it did not say."""

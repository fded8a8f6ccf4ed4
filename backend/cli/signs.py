"""Signs: what the doctor says of one question about an operation, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backend.cli.observation import STORE_AWAY, Observation
from ktrdr.operations.v1 import operation_pb2


@dataclass(frozen=True, slots=True)
class Remedy:
    """The next step."""

    action: str
    """Two words for a narrow column: "start host"."""
    advice: str
    """The same as a sentence, with addresses."""
    command: str = ""
    """What to type, if a command does it: "ktrdr operations cancel ID"."""


WAIT = Remedy("wait", "Wait.")


@dataclass(frozen=True, slots=True)
class Sign:
    """The answer to one question."""

    state: str
    """A constant UPPER_SNAKE_CASE word for programs."""
    text: str
    """The same for a narrow column."""
    why: str = ""
    """What is wrong, as a sentence; empty if nothing is."""
    remedy: Remedy | None = None
    facts: Mapping[str, str | float] = field(default_factory=dict)
    """Figures and words that go with the state, by their names in JSON."""

    @property
    def wrong(self) -> bool:
        """Whether somebody should look."""
        return bool(self.why)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is to be said of one operation."""

    operation: operation_pb2.Operation
    host: Sign
    """Whether its host answers."""
    worker: Sign
    """Whether its worker lives."""
    progress: Sign
    """Whether it goes at its own pace."""

    @property
    def signs(self) -> tuple[Sign, Sign, Sign]:
        """All three; what is wrong with an earlier one may explain the later ones."""
        return self.host, self.worker, self.progress

    @property
    def wrong(self) -> bool:
        """Whether somebody should look."""
        return any(sign.wrong for sign in self.signs)

    @property
    def remedy(self) -> Remedy | None:
        """The next step: the first that mends something, else the first there is."""
        by_urgency = sorted(self.signs, key=lambda sign: not sign.wrong)
        return next((sign.remedy for sign in by_urgency if sign.remedy is not None), None)


def address_of(observation: Observation) -> str:
    """The address of the process that the work is with; empty if it is the backend itself."""
    trouble = observation.trouble
    told = trouble.metadata.get("target", "") if trouble is not None else ""
    if trouble is not None and trouble.reason == STORE_AWAY:
        return told  # whose store it is: each process on the way has one
    return told or observation.operation.metadata.get("host_service_url", "")


def where(observation: Observation) -> str:
    """The process that the work is with, within a sentence."""
    address = address_of(observation)
    return f"the host at {address}" if address else "the backend"

"""What must hold, whatever happens: functions of what was seen that return what is wrong.

None of them calls anybody; each sentence is for the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tests.soak.looks import ORDER, Entry, Look, ReadLog
from tests.soak.schedule import Kind, Work

RESULTS = {Kind.TRAINING: "ktrdr.training.v1.TrainingResult"}
RESULTS[Kind.LOAD] = "ktrdr.marketdata.v1.DataLoadResult"
NEVER_RAN = frozenset({"NEVER_STARTED", "OPERATION_LOST"})
"""Why work ends that its host knows nothing of: hosts keep records, so it was never told."""
CUT_OFF = frozenset({"PROCESS_RESTARTED", "PROCESS_STOPPED"}) | NEVER_RAN
"""Why work ends that nobody has cancelled: its process did."""


# ------------------------------------------------------------------- while it goes on


@dataclass(frozen=True, slots=True)
class Floor:
    """What a process has told of an operation: it may tell more, but not less."""

    status: str = "PENDING"
    percentage: float = -1.0
    metrics_count: int = 0
    ended: Look | None = None
    """The first look that told its end."""

    def raised(self, look: Look) -> Floor:
        """The floor after one more look."""
        if look.ended:
            return replace(self, ended=self.ended or look)
        later = ORDER[look.status] > ORDER[self.status]
        return replace(
            self,
            status=look.status if later else self.status,
            percentage=max(self.percentage, look.percentage),
            metrics_count=max(self.metrics_count, look.metrics_count),
        )


NOTHING_TOLD = Floor()


def went_back(floor: Floor, look: Look) -> list[str]:
    """What a look tells less of than was told before it was asked for."""
    if floor.ended is not None:
        return _changed(floor.ended, look)
    wrong = []
    if not look.ended and ORDER[look.status] < ORDER[floor.status]:
        wrong.append(f"{look.status} after {floor.status}")
    if look.percentage < floor.percentage:
        wrong.append(f"{look.percentage:.3f} % after {floor.percentage:.3f} %")
    if look.metrics_count < floor.metrics_count:
        wrong.append(f"{look.metrics_count} metrics after {floor.metrics_count}")
    return wrong


def _changed(first: Look, look: Look) -> list[str]:
    """How a look differs from the first that told the end."""
    return [
        f"{name} was {getattr(first, name)} when it had ended and is {getattr(look, name)}"
        for name in ("status", "metrics_count", "percentage", "end_time", "outcome", "digest")
        if getattr(first, name) != getattr(look, name)
    ]


def too_old(look: Look, bound: float | None) -> list[str]:
    """Whether an answer is older than its caller accepts; it was answered, so it may not be.

    What was read just now from a worker of the same process is as young as can be had.
    """
    if bound is None or look.age <= bound or look.source == "BRIDGE":
        return []
    told = f"{look.status} of {look.source}, {look.age:.3f} s old"
    return [f"{told}, where {bound:.3f} s were accepted"]


NOT_FRESH = frozenset({"HOST_UNREACHABLE", "REFRESH_BUSY", "START_UNKNOWN"})
NOT_FRESH |= {"TOO_MANY_CALLS", "STORE_UNAVAILABLE"}
"""Why an answer is the last known one, with hosts that come and go and are slow."""


def contradicts_itself(look: Look) -> list[str]:
    """What no single answer may say."""
    wrong = []
    if look.ended and not (look.outcome and look.end_time):
        wrong.append(f"{look.status} without a result, an error or an end")
    if not look.ended and (look.outcome or look.end_time):
        wrong.append(f"{look.status} with a result, an error or an end")
    if look.status == "COMPLETED" and "." not in look.outcome:
        wrong.append("COMPLETED with an error")
    if look.refresh_error and look.refresh_error not in NOT_FRESH:
        wrong.append(f"no newer state was had because of {look.refresh_error}")
    if look.percentage > 100.0:
        wrong.append(f"{look.percentage} %")
    return wrong


def returned_early(look: Look, *, waited: float, timeout: float, retry_after: float) -> list[str]:
    """Whether a wait ended before its time, with the work still open and without saying why."""
    if look.ended or retry_after or waited >= 0.8 * timeout - 0.1:
        return []
    return [f"a wait of {timeout:.1f} s returned after {waited:.2f} s with {look.status}"]


# ------------------------------------------------------------------------- failed calls

SHED = frozenset({"TOO_MANY_CALLS", "WORKERS_BUSY"})
REFUSALS = frozenset(
    {
        ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS"),
        ("RESOURCE_EXHAUSTED", "WORKERS_BUSY"),
        ("FAILED_PRECONDITION", "OPERATION_ACTIVE"),
        ("OUT_OF_RANGE", "CURSOR_OUT_OF_RANGE"),
        ("UNAVAILABLE", "HOST_UNREACHABLE"),
        ("UNAVAILABLE", "REFRESH_BUSY"),
        ("UNAVAILABLE", "START_UNDER_WAY"),
        ("UNAVAILABLE", "START_UNKNOWN"),
        ("UNAVAILABLE", "PROCESS_STOPPING"),
        ("UNAVAILABLE", "STORE_UNAVAILABLE"),  # on a slow disk; one that fails is in the logs
        ("UNAVAILABLE", "UNAVAILABLE"),
    }
)
"""Codes and reasons that a client of processes that come and go has to bear."""
CUT = frozenset({"UNAVAILABLE", "CANCELLED"})
"""How a call ends whose server has gone."""


def unexpected(code: str, reason: str, *, was_down: bool) -> list[str]:
    """Whether a call may not fail like this; `was_down` if the process was, at any time of it."""
    if (code, reason) in REFUSALS or (code, reason) == ("NOT_FOUND", "OPERATION_NOT_FOUND"):
        return []
    if not reason and code in CUT and was_down:
        return []
    return [f"a call failed with {code} {reason or 'without a reason'}"]


# ---------------------------------------------------------------------------- afterwards


def ended_wrongly(work: Work, look: Look, *, cancelled: bool) -> list[str]:
    """Whether an operation ended as its work can end; `cancelled` if anybody asked for that."""
    if not look.ended:
        return [f"is still {look.status}"]
    if look.status == "CANCELLED":
        return [] if cancelled else ["was cancelled, which nobody asked for"]
    if look.status == "FAILED":
        if look.outcome in NEVER_RAN and look.start_time:
            return [f"failed with {look.outcome}, though it had begun"]
        return [] if look.outcome in CUT_OFF else [f"failed with {look.outcome}"]
    wrong = []
    if look.outcome != RESULTS[work.kind]:
        wrong.append(f"its result is a {look.outcome}")
    wanted = work.epochs if work.kind is Kind.TRAINING else len(work.symbols)
    if look.metrics_count != wanted:
        wrong.append(f"completed with {look.metrics_count} metrics instead of {wanted}")
    return wrong


def recorded_wrongly(look: Look, recorded: Sequence[Entry]) -> list[str]:
    """Whether the log of an operation that has ended has gaps or repeats."""
    wrong = []
    if len(recorded) != look.metrics_count:
        wrong.append(f"{len(recorded)} metrics recorded, {look.metrics_count} told")
    steps = [entry.step for entry in recorded]
    if steps != list(range(1, len(steps) + 1)):
        wrong.append(f"the steps recorded are {steps[:20]} ...")
    return wrong


def read_wrongly(log: ReadLog, recorded: Sequence[Entry], *, life: int) -> list[str]:
    """How a reader's log differs from the record, which in another life may have less."""
    both = zip(log.entries, recorded, strict=False)
    differing = [index for index, (read, kept) in enumerate(both) if read != kept]
    if differing:
        return [f"a reader's entries {differing[:5]} are not those recorded"]
    if log.cursor > len(recorded) and log.life == life:
        return [f"a reader has read up to {log.cursor}, the record up to {len(recorded)}"]
    return []


@dataclass(frozen=True, slots=True)
class AtHost:
    """A host's own record of work that a backend stands in for."""

    host: str
    look: Look
    recorded: Sequence[Entry]


def told_wrongly(look: Look, recorded: Sequence[Entry], found: Sequence[AtHost]) -> list[str]:
    """How what a backend stands in for differs from the records of the hosts that know it."""
    if len(found) > 1:
        return [f"ran on {' and '.join(each.host for each in found)}"]
    if not found:
        told = f"{look.status} {look.outcome}"
        return [] if look.outcome in NEVER_RAN else [f"is {told}, and no host knows it"]
    (own,) = found
    if (own.look.status, own.look.outcome) != (look.status, look.outcome):
        theirs = f"{own.look.status} {own.look.outcome}"
        return [f"is {look.status} {look.outcome}, at {own.host} it is {theirs}"]
    # A host that was killed has lost what it had told and not stored.
    shared = min(len(recorded), len(own.recorded))
    if list(recorded[:shared]) != list(own.recorded[:shared]) or len(recorded) < shared:
        return [f"its log is not that of {own.host}"]
    if len(recorded) < len(own.recorded):
        return [f"has {len(recorded)} metrics, at {own.host} there are {len(own.recorded)}"]
    return []


def not_to_be_logged(lines: Iterable[str]) -> list[str]:
    """The lines of a log that tell of a defect; that a host is away is told as an error too."""
    return [
        line
        for line in lines
        if "Traceback" in line or (" ERROR " in line and "does not answer" not in line)
    ]


# ------------------------------------------------------------------------------- footprint


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process takes up."""

    memory: int
    """Resident, MiB."""
    threads: int
    files: int
    """Open descriptors."""
    libraries: int = 0
    """Shared libraries that it has loaded."""


GROWTH: Mapping[str, int] = {"memory": 32, "threads": 16, "files": 16}
"""By how much a process may be larger at the end than it was when it had warmed up."""


def grew(before: Footprint, after: Footprint) -> list[str]:
    """What has grown beyond the tolerance."""
    return [
        f"{name} grew from {getattr(before, name)} to {getattr(after, name)}"
        for name, tolerance in GROWTH.items()
        if getattr(after, name) > getattr(before, name) + tolerance
    ]

"""Looks: what one answer says of one operation, and the log that one reader has of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from ktrdr.operations.v1 import operation_pb2

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
ORDER = {"PENDING": 0, "RUNNING": 1, "CANCELLING": 2}
"""The open states; each may be skipped, none comes after a later one."""


@dataclass(frozen=True, slots=True)
class Look:
    """One operation as one answer tells it."""

    operation_id: str
    status: str
    percentage: float
    """-1 while unknown."""
    metrics_count: int
    create_time: int
    """Nanoseconds since 1970, as all times here."""
    start_time: int
    """0 if no worker has taken it up."""
    end_time: int
    outcome: str
    """The type of its result, or the reason of its error; empty while there is none."""
    digest: str
    """Of the whole outcome, to tell whether it is the same."""
    age: float
    source: str
    refresh_error: str
    host_operation_id: str

    @property
    def ended(self) -> bool:
        """Whether it is terminal."""
        return self.status in TERMINAL


def look_of(operation: operation_pb2.Operation) -> Look:
    """Take from a message what the invariants are about."""
    which = operation.WhichOneof("outcome")
    outcome = operation.result.type_url.rpartition("/")[2] if which == "result" else ""
    return Look(
        operation_id=operation.operation_id,
        status=operation_pb2.OperationStatus.Name(operation.status).removeprefix(
            "OPERATION_STATUS_"
        ),
        percentage=(
            operation.progress.percentage if operation.progress.HasField("percentage") else -1.0
        ),
        metrics_count=operation.metrics_count,
        create_time=operation.create_time.ToNanoseconds(),
        start_time=operation.start_time.ToNanoseconds(),
        end_time=operation.end_time.ToNanoseconds(),
        outcome=operation.error.reason if which == "error" else outcome,
        digest="" if which is None else _digest(getattr(operation, which)),
        age=operation.freshness.age.ToNanoseconds() / 1e9,
        source=operation_pb2.FreshnessSource.Name(operation.freshness.source).rpartition("_")[2],
        refresh_error=operation.freshness.refresh_error.reason,
        host_operation_id=operation.metadata.get("host_operation_id", ""),
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric, small enough to keep for every reader."""

    step: int
    digest: str


def entries_of(metrics: Iterable[operation_pb2.Metric]) -> list[Entry]:
    """Take from messages what the invariants are about."""
    return [Entry(metric.step, _digest(metric)) for metric in metrics]


def _digest(message: Message) -> str:
    whole = message.SerializeToString(deterministic=True)
    return hashlib.blake2b(whole, digest_size=8).hexdigest()


@dataclass(slots=True)
class ReadLog:
    """The log of one operation as one reader has it, page by page; `cursor` is where it goes on."""

    cursor: int = 0
    entries: list[Entry] = field(default_factory=list)
    life: int = 0
    """The life of the process that told the last page."""

    def take(
        self, page: Sequence[Entry], new_cursor: int, *, life: int, has_more: bool = False
    ) -> list[str]:
        """Take a page that was asked for at `cursor`; return what is wrong with it.

        Only in another life may a process know less than it has told.
        """
        wrong: list[str] = []
        if new_cursor < self.cursor and life == self.life:
            wrong.append(f"the cursor fell from {self.cursor} to {new_cursor}")
        if new_cursor >= self.cursor and new_cursor != self.cursor + len(page):
            wrong.append(
                f"{len(page)} metrics from {self.cursor} on, but the next cursor is {new_cursor}"
            )
        if has_more and not page:
            wrong.append(f"an empty page at {self.cursor} that says there is more")
        for index, entry in enumerate(page, start=self.cursor):
            wrong += self._put(index, entry)
        self.cursor, self.life = new_cursor, life
        return wrong

    def _put(self, index: int, entry: Entry) -> list[str]:
        if entry.step != index + 1:
            return [f"entry {index} is step {entry.step}"]
        if index < len(self.entries):
            same = self.entries[index] == entry
            return [] if same else [f"entry {index} is not what it was"]
        if index > len(self.entries):
            return [f"entry {index} comes after entry {len(self.entries) - 1}"]
        self.entries.append(entry)
        return []

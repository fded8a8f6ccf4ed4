"""The report: what was done and told, as a table for people, and what did not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.soak.invariants import GROWTH
from tests.soak.schedule import BACKENDS, Fault, Kind
from tests.soak.soak import Outcome
from tests.soak.tally import Finding

_STATES = ("COMPLETED", "FAILED", "CANCELLED", "deleted", "refused")
_SHOWN = 8
"""Findings that are shown of one invariant."""


def report(outcome: Outcome) -> str:
    """Write the report of a soak."""
    parts = (_head, _operations, _done, _failed, _sizes, _verdict)
    written = [list(part(outcome)) for part in parts]
    return "\n\n".join("\n".join(lines) for lines in written if lines) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    cells = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _head(outcome: Outcome) -> list[str]:
    schedule = outcome.schedule
    told = f"Soak of {schedule.seconds:.0f} s with seed {schedule.seed}"
    return [f"{told}; it took {outcome.took:.0f} s."]


def _operations(outcome: Outcome) -> list[str]:
    """Operations by kind, backend and what has become of them."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for account in outcome.accounts:
        look = outcome.records.looks.get(account.work.operation_id)
        state = look.status if look else "deleted" if account.forgettable else "refused"
        counts[account.work.kind.value, account.work.backend, state] += 1
    rows = []
    for kind in Kind:
        for backend in BACKENDS:
            of = [counts[kind.value, backend, state] for state in _STATES]
            rows.append((f"{kind.value} {backend}", sum(of), *of))
    reasons = Counter(
        look.outcome for look in outcome.records.looks.values() if look.status == "FAILED"
    )
    lines = table(("operations", "all", *map(str.lower, _STATES)), rows)
    return [*lines, f"failed because: {_counted(reasons)}"]


def _done(outcome: Outcome) -> list[str]:
    """What clients and faults have done."""
    tally = outcome.tally
    starts, deletes, calls = tally.counts("start"), tally.counts("delete"), tally.counts("call")
    polls = calls[("GetOperation",)] + calls[("GetMetrics",)]
    faults = [
        f"{fault.value} {_counted(_by_first(tally.counts('fault', fault.value)))}"
        for fault in Fault
    ]
    return [
        f"starts: {starts[('first',)]}, repeated {starts[('repeated',)]}",
        f"cancels: {calls[('CancelOperation',)]}",
        f"deletions: {deletes[('done',)]}, not done {deletes[('refused',)]}",
        f"polls: {polls}, not fresh: {_counted(_by_first(tally.counts('not fresh')))}",
        f"waits: {calls[('WaitOperation',)]}, sent away {tally.total('sent away')}",
        f"listings: {calls[('ListOperations',)]}",
        f"shed: {_counted(_by_first(tally.counts('shed')))}",
        f"faults: {'; '.join(faults)}",
    ]


def _failed(outcome: Outcome) -> list[str]:
    """Failed calls by method, code and reason."""
    rows = [
        (f"{method} {code} {reason or '(no server)'}", times)
        for (method, code, reason), times in sorted(outcome.tally.counts("failed").items())
    ]
    return table(("calls that failed", "times"), rows) if rows else []


def _by_first(counts: Counter[tuple[str, ...]]) -> Counter[str]:
    return Counter({name[0]: number for name, number in counts.items()})


def _sizes(outcome: Outcome) -> list[str]:
    """What processes took up when warm and at the end."""
    if not outcome.sizes:
        return ["No process was weighed: none lived long enough, or the system does not tell."]
    rows = [
        (name, *(f"{getattr(warm, part)} → {getattr(end, part)}" for part in GROWTH))
        for name, (warm, end) in outcome.sizes.items()
    ]
    return table(("warm → end", "MiB", "threads", "files"), rows)


def _verdict(outcome: Outcome) -> Iterator[str]:
    """Which invariants did not hold, and where."""
    by_invariant: dict[str, list[Finding]] = {}
    for finding in outcome.tally.findings:
        by_invariant.setdefault(finding.invariant, []).append(finding)
    if not by_invariant:
        yield "Every invariant held."
    for invariant, findings in by_invariant.items():
        yield f"BROKEN: {invariant}"
        yield from (f"  {finding.subject}: {finding.what}" for finding in findings[:_SHOWN])
        if len(findings) > _SHOWN:
            yield f"  and {len(findings) - _SHOWN} more"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.most_common()) or "none"

"""The inspection: every record is read to its end, at backends and hosts, and weighed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from tests.soak.calls import Caller, CallError
from tests.soak.conductor import Conductor
from tests.soak.invariants import (
    AtHost,
    ended_wrongly,
    read_wrongly,
    recorded_wrongly,
    told_wrongly,
)
from tests.soak.ledger import Account
from tests.soak.looks import Entry, Look, ReadLog, entries_of, look_of
from tests.soak.schedule import BACKENDS, FRONT, HOSTS
from tests.soak.watchers import Scene

_SETTLED_WITHIN = 180.0
"""Seconds within which everything ends, however busy the machine."""
_PAGE = 100
_KEPT = ("status", "outcome", "digest", "end_time", "percentage", "metrics_count")
"""What of a look does not change by a restart."""


@dataclass(slots=True)
class Records:
    """What there is in the end: each operation that was found, with its log."""

    looks: dict[str, Look] = field(default_factory=dict)
    logs: dict[str, Sequence[Entry]] = field(default_factory=dict)
    at_hosts: dict[str, list[AtHost]] = field(default_factory=lambda: defaultdict(list))
    """By the host's operation id."""


# --------------------------------------------------------------------------- waiting


def settle(scene: Scene, conductor: Conductor) -> None:
    """Cancel what is endless and wait until all has ended, here and at the hosts."""
    give_up_at = monotonic() + _SETTLED_WITHIN
    while found := [name for caller in scene.callers.values() for name in _open(caller)]:
        if monotonic() > give_up_at:
            scene.tally.note("everything ends", "at the end", [f"{name} is open" for name in found])
            return
        for account in scene.ledger.accounts():
            work = account.work
            if work.endless and work.operation_id in found and not account.cancelled:
                conductor.cancel(work)
        scene.pause(0.5)


def _open(caller: Caller) -> list[str]:
    """What a process lists as open, after a refresh."""
    page: pb.ListOperationsResponse = caller.insist(
        "ListOperations", pb.ListOperationsRequest(active_only=True, page_size=500)
    )
    return [operation.operation_id for operation in page.operations]


# --------------------------------------------------------------------------- reading


def inspect(scene: Scene, *, hosts: bool) -> Records:
    """Read everything and weigh what it has come to; without `hosts`, at the backends alone."""
    records = Records()
    if hosts:
        for host in HOSTS:
            _inspect_host(scene, host, records)
    accounts = scene.ledger.accounts()
    for account in accounts:
        _inspect(scene, account, records, hosts=hosts)
    known = {account.work.operation_id for account in accounts}
    for backend in BACKENDS:
        found = [look.operation_id for look in _all(scene.callers[backend])]
        wrong = [f"{name} was never started" for name in found if name not in known]
        scene.tally.note("nothing comes from nowhere", backend, wrong)
    return records


def _inspect_host(scene: Scene, host: str, records: Records) -> None:
    for look in _all(scene.callers[host]):
        log = _log(scene.callers[host], look.operation_id)
        records.at_hosts[look.operation_id].append(AtHost(host, look, log))
        wrong = recorded_wrongly(look, log) + ([] if look.ended else [f"is {look.status}"])
        scene.tally.note("a record is whole", f"{look.operation_id} at {host}", wrong)


def _inspect(scene: Scene, account: Account, records: Records, *, hosts: bool) -> None:
    operation_id, caller = account.work.operation_id, scene.callers[account.work.backend]
    request = pb.GetOperationRequest(operation_id=operation_id, force_refresh=True)
    try:
        look = look_of(caller.insist("GetOperation", request).operation)
    except CallError as error:
        if not error.not_found:
            raise
        scene.ledger.missed(account)
        return
    scene.ledger.told(account, caller.member.life, look)
    log, note = _log(caller, operation_id), scene.tally.note
    records.looks[operation_id], records.logs[operation_id] = look, log
    ended = ended_wrongly(account.work, look, cancelled=account.cancel_sent)
    note("everything ends as it can", operation_id, ended)
    note("a record is whole", operation_id, recorded_wrongly(look, log))
    if hosts and account.work.backend == FRONT:
        found = records.at_hosts[look.host_operation_id] if look.host_operation_id else []
        note("hosts tell the same", operation_id, told_wrongly(look, log, found))


def weigh_readers(scene: Scene, records: Records, readers: Iterable[Mapping[str, ReadLog]]) -> None:
    """Compare what every reader has with the records."""
    for logs in readers:
        for operation_id, log in logs.items():
            if operation_id in records.logs:  # else it was deleted meanwhile
                backend = scene.ledger.asked(operation_id).work.backend
                life = scene.callers[backend].member.life
                wrong = read_wrongly(log, records.logs[operation_id], life=life)
                scene.tally.note("readers have what is recorded", operation_id, wrong)


def compare(scene: Scene, before: Records, after: Records) -> None:
    """Note what a restart has changed in the records."""
    for operation_id in before.looks.keys() | after.looks.keys():
        was, is_ = before.looks.get(operation_id), after.looks.get(operation_id)
        if was is None or is_ is None:
            wrong = [f"was {'not ' if was is None else ''}there before the last restart"]
        else:
            changed = [part for part in _KEPT if getattr(was, part) != getattr(is_, part)]
            same_log = before.logs[operation_id] == after.logs[operation_id]
            wrong = [f"{part} changed" for part in [*changed, *([] if same_log else ["log"])]]
        scene.tally.note("records outlive their process", operation_id, wrong)


def _all(caller: Caller) -> Iterator[Look]:
    """Every operation that a process lists."""
    token = ""
    while True:
        request = pb.ListOperationsRequest(page_size=_PAGE, page_token=token)
        page: pb.ListOperationsResponse = caller.insist("ListOperations", request)
        yield from map(look_of, page.operations)
        token = page.next_page_token
        if not token:
            return


def _log(caller: Caller, operation_id: str) -> list[Entry]:
    """The log of an operation, as far as it can be read."""
    found: list[operation_pb2.Metric] = []
    has_more = True
    while has_more:
        request = pb.GetMetricsRequest(
            operation_id=operation_id, cursor=len(found), page_size=_PAGE
        )
        try:
            page: pb.GetMetricsResponse = caller.insist("GetMetrics", request)
        except CallError as error:
            if not error.not_found:
                raise
            break  # what there is will be compared with what was told
        found += page.metrics
        has_more = page.has_more
    return entries_of(found)

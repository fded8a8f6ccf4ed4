"""One soak, from the start of its processes to their end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.soak.calls import Caller
from tests.soak.conductor import Conductor
from tests.soak.fleet import Fleet
from tests.soak.footprint import Scales
from tests.soak.inspection import Records, compare, inspect, settle, weigh_readers
from tests.soak.invariants import Footprint
from tests.soak.ledger import Account, Ledger
from tests.soak.schedule import BACKENDS, Schedule, draw_schedule
from tests.soak.tally import Tally
from tests.soak.watchers import EndWaiter, HostLister, Lister, Poller, Scene, Watcher, watch

logger = logging.getLogger("soak")

POLLERS = 200
WAITERS = 16
_LAST_LOOK = 4.0
"""Seconds that pollers have to see how the last operations ended."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a soak has come to; what did not hold is in its tally."""

    schedule: Schedule
    took: float
    """Seconds."""
    tally: Tally
    records: Records
    accounts: Sequence[Account]
    sizes: Mapping[str, tuple[Footprint, Footprint]]
    """Of each process that could be compared: warm, and at the end."""


def run_soak(seed: int, seconds: float, home: Path) -> Outcome:
    """Run one soak with its files below `home`; returns whatever happens in it."""
    began, schedule, tally = monotonic(), draw_schedule(seed, seconds), Tally()
    fleet = Fleet(home, tally)
    callers = {name: Caller(member, tally) for name, member in fleet.members.items()}
    ledger = Ledger(lambda backend: fleet.members[backend].life, tally)
    scene = Scene(seed, callers, ledger, tally, threading.Event())
    scales, records = Scales(fleet.members.values()), Records()
    try:
        fleet.start()
        pollers = [Poller(scene, number) for number in range(POLLERS)]
        _go_through(scene, fleet, schedule, scales, pollers)
        records = _weigh(scene, fleet, scales, pollers)
    except Exception as error:
        logger.exception("The soak broke off")
        tally.note("a soak comes to its end", "soak", [repr(error)])
    finally:
        scene.enough.set()
        for caller in callers.values():
            caller.close()
        fleet.close()
    fleet.look_into_logs()
    took = monotonic() - began
    return Outcome(schedule, took, tally, records, ledger.accounts(), scales.sizes)


def _go_through(
    scene: Scene, fleet: Fleet, schedule: Schedule, scales: Scales, pollers: Sequence[Poller]
) -> None:
    """Carry out the schedule while clients watch, and wait until everything has ended."""
    conductor = Conductor(scene, fleet, schedule)
    with ThreadPoolExecutor(1, thread_name_prefix="scales") as pool:
        weighing = pool.submit(scales.watch, schedule.warm_at, schedule.warm_for, scene.enough)
        try:
            with _clients(scene, pollers):
                conductor.run()
                settle(scene, conductor)
                scene.enough.wait(_LAST_LOOK)
        finally:
            scene.enough.set()
    weighing.result()


@contextmanager
def _clients(scene: Scene, pollers: Sequence[Poller]) -> Iterator[None]:
    """Have all clients at work meanwhile; raises what a client broke with."""
    watchers: list[Watcher] = [
        *pollers,
        *(EndWaiter(scene, number) for number in range(WAITERS)),
        *(Lister(scene, backend, number) for backend in BACKENDS for number in range(2)),
        HostLister(scene),
    ]
    with ThreadPoolExecutor(len(watchers), thread_name_prefix="watcher") as pool:
        at_work = [pool.submit(watch, scene, watcher) for watcher in watchers]
        try:
            yield
        finally:
            scene.enough.set()
    for done in at_work:
        done.result()


def _weigh(scene: Scene, fleet: Fleet, scales: Scales, pollers: Sequence[Poller]) -> Records:
    """Weigh everything once nobody asks any more, and again what the backends have kept."""
    for name, grown in scales.weigh().items():
        scene.tally.note("a process does not grow", name, grown)
    records = inspect(scene, hosts=True)
    weigh_readers(scene, records, [poller.logs for poller in pollers])
    fleet.leave_backends()
    compare(scene, records, inspect(scene, hosts=False))
    return records

"""The fleet: the processes of a soak, killed, stopped and frozen while others use them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tests.soak.absences import Absences
from tests.soak.invariants import not_to_be_logged
from tests.soak.schedule import ALONE, BACKENDS, FRONT, IB_HOST, TRAINERS, Break, Fault
from tests.soak.tally import Tally
from tests.support.processes import KtrdrProcess

_STOPS_WITHIN = 60.0
"""Seconds that a process has for its orderly end."""
_PORTS = range(21_000, 31_000)
"""Below those that the system hands out, so that nobody takes one while its process is away.

The databases of tests/support/postgres.py keep to ports below these.
"""


class Member:
    """One process that is started again at its address, with its files."""

    def __init__(
        self, name: str, module: str, address: str, home: Path, settings: Mapping[str, str]
    ) -> None:
        self.name = name
        self.module = module
        self.address = address
        self.pid = 0
        """Of its present or last run."""
        self._home = home / name
        self._settings = {f"KTRDR_{module.upper()}_ADDRESS": address, **settings}
        self._process: KtrdrProcess | None = None
        self.absences = Absences()
        self._lock = threading.Lock()  # guards _life
        self._life = 0

    @property
    def log(self) -> Path:
        """What it has said over all its lives."""
        return self._home / f"{self.module}.log"

    @property
    def life(self) -> int:
        """Grows whenever it may have lost what it had told and not stored."""
        with self._lock:
            return self._life

    def start(self) -> None:
        """Run it; returns once it serves."""
        self._process = KtrdrProcess(self.module, self._home, crash=None, **self._settings)
        self.pid = self._process.process.pid

    def kill(self) -> None:
        """End it as a power cut does."""
        with self._lock:
            self._life += 1
        self._running().kill()
        self.close()

    def stop(self) -> list[str]:
        """End it in order; return what was wrong with its end."""
        if self.name == FRONT:  # it stores what it learns of others' work by and by
            with self._lock:
                self._life += 1
        process = self._running().process
        process.terminate()
        try:
            code = process.wait(_STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            return [f"did not stop within {_STOPS_WITHIN:.0f} s"]
        finally:
            self.close()
        return [] if code == 0 else [f"ended with exit code {code}"]

    def freeze(self, enough: threading.Event, seconds: float) -> None:
        """Let it do nothing for some seconds, with its connections open."""
        process = self._running().process
        process.send_signal(signal.SIGSTOP)
        try:
            enough.wait(seconds)
        finally:
            process.send_signal(signal.SIGCONT)

    def died(self) -> list[str]:
        """Whether it has ended without having been told to."""
        code = self._running().process.poll()
        return [] if code is None else [f"ended by itself with exit code {code}"]

    def close(self) -> None:
        """End it, if it runs, and give everything back."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _running(self) -> KtrdrProcess:
        assert self._process is not None, f"{self.name} does not run"
        return self._process


@dataclass(slots=True)
class Fleet:
    """All processes: two training hosts, an IB host, and two backends."""

    home: Path
    tally: Tally
    members: dict[str, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = (*TRAINERS, IB_HOST, FRONT, ALONE)
        at = dict(zip(names, free_addresses(len(names)), strict=True))
        # Little room, so that some starts are refused, some calls shed, some waits sent away.
        few = {"KTRDR_TRAINING_QUEUE": "3", "KTRDR_READ_LIMIT": "16", "KTRDR_WAIT_LIMIT": "6"}
        hosts = {
            "KTRDR_TRAINING_MODE": "host",
            "TRAINING_HOST_SERVICE_URL": ",".join(at[name] for name in TRAINERS),
            "KTRDR_DATA_SOURCE": "ib",
            "IB_HOST_SERVICE_URL": at[IB_HOST],
        }
        kinds = {
            **dict.fromkeys(TRAINERS, ("training_host", few)),
            IB_HOST: ("ib_host", {"KTRDR_IB_GATEWAY": "simulator"}),
            FRONT: ("backend", {**few, **hosts}),
            ALONE: ("backend", few),
        }
        for name, (module, settings) in kinds.items():
            hasty = {"KTRDR_SHUTDOWN_GRACE": "0.5", **settings}
            self.members[name] = Member(name, module, at[name], self.home, hasty)

    def start(self, *names: str) -> None:
        """Start these at once, or all."""
        members = [self.members[name] for name in names or self.members]
        with ThreadPoolExecutor(len(members)) as starters:
            list(starters.map(Member.start, members))

    def carry_out(self, fault: Break, enough: threading.Event) -> None:
        """Do to a process what the schedule says; returns once it serves again."""
        member = self.members[fault.process]
        self.tally.note("nothing ends by itself", member.name, member.died())
        self.tally.count("fault", fault.fault.value, member.name)
        with member.absences.absent(keeps_connections=fault.fault is Fault.FREEZE):
            match fault.fault:
                case Fault.FREEZE:
                    member.freeze(enough, fault.seconds)
                case Fault.KILL:
                    member.kill()
                    member.start()
                case Fault.STOP:
                    self.tally.note("a process stops in order", member.name, member.stop())
                    member.start()

    def leave_backends(self) -> None:
        """Stop all in order, and start the backends again: they have only their records."""
        with ExitStack() as absent:
            for member in self.members.values():
                absent.enter_context(member.absences.absent(keeps_connections=False))
            self.stop()
            self.start(*BACKENDS)

    def stop(self) -> None:
        """Stop all in order, at once, and note who did not."""
        members = list(self.members.values())
        for member in members:
            self.tally.note("nothing ends by itself", member.name, member.died())
        with ThreadPoolExecutor(len(members)) as stoppers:
            for member, wrong in zip(members, stoppers.map(Member.stop, members), strict=True):
                self.tally.note("a process stops in order", member.name, wrong)

    def close(self) -> None:
        """End what still runs."""
        for member in self.members.values():
            member.close()

    def look_into_logs(self) -> None:
        """Note what no log should have."""
        for member in self.members.values():
            lines = member.log.read_text("utf-8", "replace").splitlines()
            self.tally.note("no log has an error", member.name, not_to_be_logged(lines))


def free_addresses(count: int) -> list[str]:
    """So many addresses at which nothing listens; other processes begin to look elsewhere."""
    found: list[str] = []
    first = os.getpid() * 10 % len(_PORTS)
    for port in chain(_PORTS[first:], _PORTS[:first]):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(f"127.0.0.1:{port}")
        if len(found) == count:
            return found
    raise AssertionError("too few ports are free")

"""Watchers: clients that look, wait and list, again and again, and weigh what they are told.

Each is a thread of its own with chances of its own. What they share is the ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Protocol

from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.conversion import duration
from tests.soak.calls import Caller, CallError
from tests.soak.invariants import returned_early, too_old
from tests.soak.ledger import Account, Ledger
from tests.soak.looks import ReadLog, entries_of, look_of
from tests.soak.schedule import HOSTS
from tests.soak.tally import Tally

_LONGEST_PAUSE = 3.0
"""Seconds that a client stays away at most, whatever it was told."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What all clients of a soak have in common."""

    seed: int
    callers: Mapping[str, Caller]
    ledger: Ledger
    tally: Tally
    enough: threading.Event
    """Set when the soak is over."""

    def pause(self, seconds: float) -> None:
        """Do nothing for some seconds, unless it is over."""
        self.enough.wait(min(seconds, _LONGEST_PAUSE))

    def chances(self, who: str) -> Random:
        """The chances of one client."""
        return Random(f"{self.seed}/{who}")  # noqa: S311  # no secret


class Watcher(Protocol):
    """One client."""

    def step(self) -> None:
        """Do one thing; raises CallError if its call failed."""
        ...


def watch(scene: Scene, watcher: Watcher) -> None:
    """Have a client do one thing after the other until it is over."""
    while not scene.enough.is_set():
        try:
            watcher.step()
        except CallError as error:
            scene.pause(error.retry_after)


class Poller:
    """Follows one operation after the other, and keeps its cursor into each log."""

    def __init__(self, scene: Scene, number: int) -> None:
        self.logs: dict[str, ReadLog] = {}
        self._scene = scene
        self._rng = scene.chances(f"poller/{number}")
        self._following: str | None = None
        self._looks_left = 0

    def step(self) -> None:
        """Look once, and stay away for a while."""
        if self._looks_left <= 0:
            chosen = self._scene.ledger.choose(self._rng)
            self._following = None if chosen is None else chosen.work.operation_id
            self._looks_left = self._rng.randint(3, 15)
        self._looks_left -= 1
        if self._following is not None:
            asked = self._scene.ledger.asked(self._following)
            try:
                self._look(asked)
            except CallError as error:
                self._looks_left = 0 if error.not_found else self._looks_left
                if not error.not_found:
                    raise
                self._scene.ledger.missed(asked)
        self._scene.pause(self._rng.uniform(0.5, 3.0))

    def _look(self, asked: Account) -> None:
        caller = self._scene.callers[asked.work.backend]
        life, chance = caller.member.life, self._rng.random()
        if chance < 0.1:
            self._page(asked, caller, life)
            return
        request = pb.GetOperationRequest(operation_id=asked.work.operation_id)
        log = self._log(asked)
        request.metrics_cursor = log.cursor
        bound = None
        if chance < 0.25:
            request.force_refresh = True
        elif chance < 0.4:
            bound = round(self._rng.uniform(0.2, 2.0), 3)
            request.max_staleness.CopyFrom(duration(bound))
        answer: pb.GetOperationResponse = caller.call("GetOperation", request)
        look = look_of(answer.operation)
        certain = self._scene.ledger.told(asked, life, look)
        self._note("no answer is older than its bound", asked, too_old(look, bound))
        self._take(asked, answer, life if certain else -1)

    def _page(self, asked: Account, caller: Caller, life: int) -> None:
        """Read a page of the log alone; a cursor past the end is an error here."""
        log = self._log(asked)
        request = pb.GetMetricsRequest(
            operation_id=asked.work.operation_id,
            cursor=log.cursor,
            page_size=self._rng.choice((0, 1, 7, 50)),
        )
        try:
            answer: pb.GetMetricsResponse = caller.call("GetMetrics", request)
        except CallError as error:
            if error.failed.reason != "CURSOR_OUT_OF_RANGE":
                raise
            answer = pb.GetMetricsResponse(new_cursor=int(error.failed.metadata["metrics_count"]))
        certain = life == caller.member.life
        self._take(asked, answer, life if certain else -1)

    def _take(
        self, asked: Account, answer: pb.GetOperationResponse | pb.GetMetricsResponse, life: int
    ) -> None:
        """Add to the log; an answer of an uncertain life may be of another."""
        log, page = self._log(asked), entries_of(answer.metrics)
        wrong = log.take(page, answer.new_cursor, life=life, has_more=answer.has_more)
        self._note("a log is read without gaps and repeats", asked, wrong)

    def _log(self, asked: Account) -> ReadLog:
        """The log as far as it has been read; anew until the operation is accepted."""
        if not asked.accepted:
            return ReadLog()
        return self.logs.setdefault(asked.work.operation_id, ReadLog())

    def _note(self, invariant: str, asked: Account, wrong: list[str]) -> None:
        self._scene.tally.note(invariant, asked.work.operation_id, wrong)


class EndWaiter:
    """Waits for the end of one operation after the other."""

    def __init__(self, scene: Scene, number: int) -> None:
        self._scene = scene
        self._rng = scene.chances(f"waiter/{number}")

    def step(self) -> None:
        """Wait once, and come back when told to."""
        asked = self._scene.ledger.choose(self._rng)
        if asked is None:
            self._scene.pause(0.5)
            return
        try:
            retry_after = self._wait(asked)
        except CallError as error:
            if not error.not_found:
                raise
            self._scene.ledger.missed(asked)
            retry_after = 0.0
        self._scene.pause(retry_after or self._rng.uniform(0.2, 1.0))

    def _wait(self, asked: Account) -> float:
        caller = self._scene.callers[asked.work.backend]
        life, timeout = caller.member.life, self._rng.uniform(0.5, 8.0)
        request = pb.WaitOperationRequest(
            operation_id=asked.work.operation_id, timeout=duration(timeout)
        )
        sent_at = monotonic()
        answer: pb.WaitOperationResponse = caller.call("WaitOperation", request)
        look, retry_after = look_of(answer.operation), answer.retry_after.ToNanoseconds() / 1e9
        self._scene.ledger.told(asked, life, look)
        wrong = returned_early(
            look, waited=monotonic() - sent_at, timeout=timeout, retry_after=retry_after
        )
        self._scene.tally.note("no wait ends early unsaid", asked.work.operation_id, wrong)
        if retry_after:
            self._scene.tally.count("sent away")
        return retry_after


class Lister:
    """Reads whole listings, page by page, and now and then the active ones."""

    def __init__(self, scene: Scene, backend: str, number: int) -> None:
        self._scene = scene
        self._backend = backend
        self._rng = scene.chances(f"lister/{backend}/{number}")

    def step(self) -> None:
        """Read one listing."""
        if self._rng.random() < 0.5:
            self._active()
        else:
            self._whole()
        self._scene.pause(self._rng.uniform(0.5, 3.0))

    def _active(self) -> None:
        request = pb.ListOperationsRequest(active_only=True, page_size=self._rng.choice((5, 500)))
        self._weigh(request)

    def _whole(self) -> None:
        """A listing of everything has every operation once."""
        asked = self._asked()
        listed: list[str] = []
        size, token = self._rng.choice((7, 50, 500)), ""
        while True:
            page = self._weigh(pb.ListOperationsRequest(page_size=size, page_token=token))
            listed += [operation.operation_id for operation in page.operations]
            token = page.next_page_token
            if not token:
                break
        wrong = [f"{id_} is listed twice" for id_ in {i for i in listed if listed.count(i) > 1}]
        for operation_id, account in asked.items():
            if account.accepted and operation_id not in listed:
                now = self._scene.ledger.asked(operation_id)
                wrong += [] if now.forgettable else [f"{operation_id} is not listed"]
        self._scene.tally.note("a listing is complete", self._backend, wrong)

    def _weigh(self, request: pb.ListOperationsRequest) -> pb.ListOperationsResponse:
        """Read one page and weigh each row."""
        asked, caller = self._asked(), self._scene.callers[self._backend]
        life = caller.member.life
        page: pb.ListOperationsResponse = caller.call("ListOperations", request)
        for row in page.operations:
            self._weigh_row(asked, life, row)
        return page

    def _weigh_row(
        self, asked: Mapping[str, Account], life: int, row: operation_pb2.Operation
    ) -> None:
        if row.operation_id in asked:  # else it was started since
            self._scene.ledger.told(asked[row.operation_id], life, look_of(row))

    def _asked(self) -> dict[str, Account]:
        return {
            account.work.operation_id: account
            for account in self._scene.ledger.accounts()
            if account.work.backend == self._backend
        }


class HostLister:
    """Lists what hosts do, as people do who look for themselves."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._rng = scene.chances("host lister")

    def step(self) -> None:
        """List at one host."""
        request = pb.ListOperationsRequest(active_only=self._rng.random() < 0.5)
        self._scene.callers[self._rng.choice(HOSTS)].call("ListOperations", request)
        self._scene.pause(self._rng.uniform(0.5, 2.0))

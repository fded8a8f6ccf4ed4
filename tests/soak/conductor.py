"""The conductor: carries out the schedule, each action when its time has come."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from ktrdr.marketdata.v1 import market_data_service_pb2 as data_pb
from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from tests.soak.calls import CallError
from tests.soak.fleet import Fleet
from tests.soak.looks import look_of
from tests.soak.schedule import Break, Cancel, Delete, Event, Kind, Schedule, Start, Work
from tests.soak.watchers import Scene
from tests.support.programs import SMALL

_ATTEMPTS = 4
"""How often a client sends a request that is refused for now."""
_AT_ONCE = 24
"""Clients that start, cancel and delete."""
_SLOWER = {"model.training.batch_size": "32"}
"""Makes an epoch last some hundredths of a second."""
_SINCE = 1_104_537_600
"""2005-01-01, in seconds since 1970: where loads begin that name a beginning."""


class Conductor:
    """Carries out one schedule."""

    def __init__(self, scene: Scene, fleet: Fleet, schedule: Schedule) -> None:
        self._scene = scene
        self._fleet = fleet
        self._schedule = schedule
        self._strategy = SMALL.read_text("utf-8")

    def run(self) -> None:
        """Carry out everything; returns when the time is up and every call is answered."""
        began = monotonic()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="client") as clients:
            doing = [clients.submit(self._break, self._schedule.of(Break), began)]
            try:
                for event in self._schedule.of(Start, Cancel, Delete):
                    self._await(began + event.at)
                    copies = event.action.copies if isinstance(event.action, Start) else 1
                    doing += [clients.submit(self._do, event) for _ in range(copies)]
                self._await(began + self._schedule.seconds)
            except BaseException:  # an interrupt
                self._scene.enough.set()
                raise
        for done in doing:
            done.result()

    def _break(self, faults: Sequence[Event], began: float) -> None:
        """Carry out the faults, one after the other; those that time has run out for are left."""
        for fault in faults:
            self._await(began + fault.at)
            late = monotonic() > began + self._schedule.seconds
            if not late and isinstance(fault.action, Break):
                self._fleet.carry_out(fault.action, self._scene.enough)

    def _await(self, instant: float) -> None:
        self._scene.enough.wait(max(0.0, instant - monotonic()))

    def _do(self, event: Event) -> None:
        match event.action:
            case Start(work, _, repeat):
                self._start(work, repeat=repeat)
            case Cancel(work):
                self.cancel(work)
            case Delete(work):
                self._delete(work)
            case Break():
                pass

    # ----------------------------------------------------------------------- starting

    def _start(self, work: Work, *, repeat: bool) -> None:
        """Send a request, and again if it is refused for now."""
        for _ in range(_ATTEMPTS):
            if self._scene.enough.is_set() or not self._scene.ledger.begin_start(work):
                return
            self._scene.tally.count("start", "repeated" if repeat else "first")
            try:
                operation = self._send(work)
            except CallError as error:
                self._scene.ledger.end_start(work, None)
                self._scene.pause(error.retry_after)
                repeat = True
            else:
                self._scene.ledger.end_start(work, look_of(operation))
                return

    def _send(self, work: Work) -> operation_pb2.Operation:
        caller = self._scene.callers[work.backend]
        if work.kind is Kind.TRAINING:
            answer = caller.call("StartTraining", self._training(work))
        else:
            answer = caller.call("StartDataLoad", _load(work))
        operation: operation_pb2.Operation = answer.operation
        return operation

    def _training(self, work: Work) -> training_pb.StartTrainingRequest:
        return training_pb.StartTrainingRequest(
            request_id=work.request_id,
            strategy_yaml=self._strategy,
            symbols=["IBM"],
            timeframes=["1d"],
            seed=self._schedule.seed,
            overrides={"model.training.epochs": str(work.epochs), **_SLOWER},
        )

    # ------------------------------------------------------------ cancelling, deleting

    def cancel(self, work: Work) -> None:
        """Ask an operation to stop, and again if that cannot be said now."""
        if not self._scene.ledger.begin_cancel(work.operation_id):
            return
        asked = self._scene.ledger.asked(work.operation_id)
        caller = self._scene.callers[work.backend]
        request = pb.CancelOperationRequest(operation_id=work.operation_id, reason="soak")
        for _ in range(_ATTEMPTS):
            life = caller.member.life
            try:
                answer = caller.call("CancelOperation", request)
            except CallError as error:
                if error.not_found:
                    self._scene.ledger.missed(asked)
                    return
                self._scene.pause(error.retry_after)
            else:
                self._scene.ledger.end_cancel(work.operation_id)
                look = look_of(answer.operation)
                self._scene.ledger.told(asked, life, look)
                wrong = [f"is {look.status}"] if look.status == "RUNNING" else []
                self._scene.tally.note("what is cancelled stops", work.operation_id, wrong)
                return

    def _delete(self, work: Work) -> None:
        """Have an operation forgotten; refused if it has not ended."""
        if not self._scene.ledger.begin_delete(work.operation_id):
            return
        request = pb.DeleteOperationRequest(operation_id=work.operation_id)
        deleted, known = False, False
        try:
            self._scene.callers[work.backend].call("DeleteOperation", request)
            deleted = True
        except CallError as error:
            known = bool(error.failed.reason)
        finally:
            self._scene.ledger.end_delete(work.operation_id, deleted=deleted, known=known)
        self._scene.tally.count("delete", "done" if deleted else "refused")


def _load(work: Work) -> data_pb.StartDataLoadRequest:
    request = data_pb.StartDataLoadRequest(
        request_id=work.request_id,
        symbols=work.symbols,
        timeframe="1d",
        mode=data_pb.LOAD_MODE_FULL,
    )
    if not work.whole:
        request.start_time.seconds = _SINCE
    return request

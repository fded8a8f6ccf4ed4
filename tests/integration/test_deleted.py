"""What was deleted stays so, whoever else on the same store still has it in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.instance import Instance
from tests.integration.hosted import host_id
from tests.integration.refusals import refused
from tests.integration.running import COMPLETED, FAILED, RUNNING, RunningBackend
from tests.integration.sharing import on
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost
from tests.support.postgres import PostgresServer
from tests.support.scripted_work import ScriptedWork

REQUEST = "hosted"
OP = f"op_training_{REQUEST}"
Serve = Callable[..., AbstractContextManager[RunningBackend]]


@dataclass(frozen=True)
class Pair:
    """Two backends on one store that stand in for one training of a host."""

    first: RunningBackend
    second: RunningBackend
    host: ScriptedHost
    work: ScriptedWork

    def end(self) -> None:
        """Let the work end, and the host know that it has."""
        self.work.finish()
        read = partial(self.host.operations.get_operation, host_id(OP))
        eventually(lambda: read().operation.status.terminal)

    def delete(self) -> None:
        """Have it forgotten through the first."""
        assert COMPLETED == self.first.ended(OP).status
        self.first.operations.DeleteOperation(pb.DeleteOperationRequest(operation_id=OP))

    def delete_before_the_next_answer(self) -> threading.Event:
        """Do so once the host has read its end for the second, which gets the answer afterwards.

        Returns what is set by then.
        """
        deleted = threading.Event()

        def delete() -> None:
            self.host.servicer.after_get = lambda: None
            self.delete()
            deleted.set()

        self.host.servicer.after_get = delete
        return deleted

    def assert_gone(self) -> None:
        """Neither backend knows it, nor does the store."""
        for backend in (self.second, self.first):
            assert grpc.StatusCode.NOT_FOUND is refused(partial(backend.operation, OP)).code
            assert [] == listed(backend)


def listed(backend: RunningBackend) -> list[str]:
    page = backend.operations.ListOperations(pb.ListOperationsRequest(), timeout=10)
    return [each.operation_id for each in page.operations]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database for both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/both.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def backend(url: str, tmp_path: Path, host: ScriptedHost) -> Serve:
    """Serves a backend that trains on the host; its answers are never cached."""

    def serve(name: str, **fields: Any) -> AbstractContextManager[RunningBackend]:
        return on(
            url,
            tmp_path / name,
            training_mode="host",
            TRAINING_HOST_SERVICE_URL=host.address,
            cache_ttl=0.0,
            **fields,
        )

    return serve


@pytest.fixture
def pair(backend: Serve, host: ScriptedHost) -> Iterator[Pair]:
    """Both have seen it run."""
    with backend("a") as first, backend("b") as second:
        first.train(request_id=REQUEST)
        work = host.work(OP)
        work.report_epochs(3)
        assert [1, 2, 3] == first.epochs(OP) == second.epochs(OP)
        yield Pair(first, second, host, work)


def test_a_read_through_the_other_backend_brings_nothing_back(pair: Pair) -> None:
    pair.work.finish()
    pair.delete()

    pair.assert_gone()


def test_nor_does_a_listing_that_was_under_way(pair: Pair) -> None:
    pair.end()
    deleted = pair.delete_before_the_next_answer()

    assert [] == listed(pair.second)
    assert deleted.is_set()
    pair.assert_gone()


def test_nor_does_a_read_that_was_under_way(pair: Pair) -> None:
    pair.end()
    deleted = pair.delete_before_the_next_answer()

    assert grpc.StatusCode.NOT_FOUND is refused(lambda: pair.second.operation(OP)).code
    assert deleted.is_set()
    pair.assert_gone()


def test_nor_does_a_wait_that_was_under_way(pair: Pair) -> None:
    request = pb.WaitOperationRequest(operation_id=OP, timeout=Duration(seconds=30))
    waiting = pair.second.operations.WaitOperation.future(request, timeout=40)
    eventually(lambda: pair.host.calls["WaitOperation"] == 1)
    deleted = pair.delete_before_the_next_answer()
    pair.work.finish()

    assert grpc.StatusCode.NOT_FOUND is refused(partial(waiting.result, timeout=10)).code
    assert deleted.is_set()
    pair.assert_gone()


def test_nor_does_a_cancellation(pair: Pair) -> None:
    pair.work.finish()
    pair.delete()

    assert grpc.StatusCode.NOT_FOUND is refused(lambda: pair.second.cancel(OP)).code
    pair.assert_gone()


def test_nor_does_a_host_that_has_lost_it(pair: Pair) -> None:
    pair.work.finish()
    pair.delete()
    pair.host.operations.delete_operation("host_training_" + OP)

    pair.assert_gone()


def test_nor_does_a_restart(backend: Serve, host: ScriptedHost) -> None:
    me = uuid4().hex
    with backend("a") as first, backend("b", instance=Instance(me, "first")) as second:
        first.train(request_id=REQUEST)
        work = host.work(OP)
        assert RUNNING == second.operation(OP).status
        second.vanish()
        work.finish()
        Pair(first, second, host, work).delete()
        with backend("again", instance=Instance(me, "second")) as again:
            Pair(first, again, host, work).assert_gone()


def test_what_was_started_anew_under_the_id_is_shown_by_both(pair: Pair) -> None:
    pair.work.finish()
    before = pair.first.ended(OP)
    pair.delete()
    pair.first.train(request_id=REQUEST)

    for shown in (pair.second.operation(OP), pair.first.operation(OP)):
        assert before.create_time.ToDatetime() < shown.create_time.ToDatetime()
        assert COMPLETED == shown.status, "it is the same at the host, which has it still"
    assert [1, 2, 3] == pair.second.epochs(OP) == pair.first.epochs(OP)
    assert [OP] == listed(pair.first) == listed(pair.second)


def test_work_that_was_given_up_and_deleted_stays_so_when_its_owner_is_back(
    url: str, tmp_path: Path
) -> None:
    with on(url, tmp_path / "a") as first, on(url, tmp_path / "b") as second:
        work = first.scripted.start_running()
        work.report_epochs(3)
        assert [1, 2, 3] == second.epochs(work.operation_id)
        first.vanish()  # for the others; its work goes on
        given_up = pb.CancelOperationRequest(operation_id=work.operation_id, give_up=True)
        assert FAILED == second.operations.CancelOperation(given_up).operation.status
        second.operations.DeleteOperation(pb.DeleteOperationRequest(operation_id=work.operation_id))
        work.finish()
        eventually(lambda: first.backend.operations.open_operations().total() == 0)

        assert [] == listed(second)
        code = refused(lambda: second.operation(work.operation_id)).code
        assert grpc.StatusCode.NOT_FOUND is code

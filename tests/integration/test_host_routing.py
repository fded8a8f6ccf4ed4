"""Which host gets a training, and what a client is told if none does."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import grpc
import pytest

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from ktrdr.training.v1 import training_service_pb2_grpc
from shared.operations.store import OperationFilter
from shared.rpc.server import ServerLimits
from tests.integration.hosted import backend_on, host_id
from tests.integration.refusals import Refusal, refused
from tests.integration.running import COMPLETED, RUNNING, SMALL, RunningBackend
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.relay import Relay
from tests.support.scripted_work import PATIENCE

_ALL = OperationFilter()


@contextmanager
def _hosts(home: Path, count: int, **options: object) -> Iterator[list[ScriptedHost]]:
    """Serve several hosts, alike."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(scripted_host(home / f"host{number}", **options))
            for number in range(count)
        ]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where connections are refused."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.shutdown(socket.SHUT_RDWR)  # still ours, and listening no more
        yield address


def _busy(host: ScriptedHost, count: int) -> None:
    """Give a host trainings of its own clients."""
    with grpc.insecure_channel(host.address) as channel:
        stub = training_service_pb2_grpc.TrainingServiceStub(channel)
        for _ in range(count):
            stub.StartTraining(training_pb.StartTrainingRequest(strategy_yaml=SMALL))


def _trainer(front: RunningBackend, operation_id: str) -> str:
    """The address of who trains."""
    return front.operation(operation_id).metadata["host_service_url"]


def _total(front: RunningBackend) -> int:
    return int(front.operations.ListOperations(pb.ListOperationsRequest()).total_count)


def _nothing_left(front: RunningBackend, operation_id: str) -> bool:
    """Whether the backend knows nothing of an operation, in any way of asking."""
    unknown = refused(lambda: front.operation(operation_id))
    kept = front.backend.operations._store.get(operation_id)
    return (unknown.reason, kept) == ("OPERATION_NOT_FOUND", None) and _total(front) == 0


# --------------------------------------------------------------------- least busy


def test_the_least_busy_host_gets_the_training(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 3) as hosts,
        backend_on(tmp_path / "backend", *(host.address for host in hosts)) as front,
    ):
        _busy(hosts[0], 2)
        _busy(hosts[1], 1)
        _busy(hosts[2], 3)
        operation_id = front.train()
        assert hosts[1].address == _trainer(front, operation_id)
        assert host_id(operation_id) in hosts[1].works
        assert {2, 3} == {len(hosts[0].works), len(hosts[2].works)}


def test_every_host_is_asked_and_one_is_told(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 3) as hosts,
        backend_on(tmp_path / "backend", *(host.address for host in hosts)) as front,
    ):
        front.train()
        assert [1, 1, 1] == [host.calls["ListOperations"] for host in hosts]
        assert [1, 0, 0] == [len(host.works) for host in hosts]


def test_trainings_one_after_the_other_spread_over_the_hosts(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 3) as hosts,
        backend_on(tmp_path / "backend", *(host.address for host in hosts)) as front,
    ):
        ids = [front.train() for _ in range(6)]
        assert [2, 2, 2] == [len(host.works) for host in hosts]
        for operation_id in ids[:3]:
            assert _trainer(front, operation_id) != ""
        assert {host.address for host in hosts} == {_trainer(front, each) for each in ids}
        assert [RUNNING] * 6 == [front.operation(each).status for each in ids]


def test_what_has_ended_does_not_count(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 2) as (first, second),
        backend_on(tmp_path / "backend", first.address, second.address) as front,
    ):
        _busy(first, 2)
        _busy(second, 1)
        for work in list(first.works.values()):
            work.finish()
        eventually(lambda: not first.operations._registry._live)
        assert first.address == _trainer(front, front.train())


def test_each_training_is_read_from_its_own_host(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 2) as hosts,
        backend_on(tmp_path / "backend", *(host.address for host in hosts)) as front,
    ):
        ids = [front.train(), front.train()]
        works = [host.work(each) for host, each in zip(hosts, ids, strict=True)]
        for count, work in enumerate(works, start=1):
            work.report_epochs(count)
        assert [[1], [1, 2]] == [front.epochs(each) for each in ids]
        instances = [front.operation(each).freshness.path[1].instance for each in ids]
        assert [host.instance.id for host in hosts] == instances
        front.cancel(ids[1])
        assert [False, True] == [work.bridge.cancel.requested for work in works]


# -------------------------------------------------------------------- passed over


def test_a_full_host_is_passed_over_though_it_has_less_to_do(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "small", workers=1, queue_limit=0) as small,
        scripted_host(tmp_path / "large", workers=8) as large,
        backend_on(tmp_path / "backend", small.address, large.address) as front,
    ):
        _busy(small, 1)
        _busy(large, 3)
        operation_id = front.train()
        assert large.address == _trainer(front, operation_id)
        assert host_id(operation_id) in large.works
        large.work(operation_id).finish()
        assert COMPLETED == front.ended(operation_id).status
        assert 1 == small.operations._store.count(_ALL)


def test_a_host_that_is_down_is_passed_over(
    tmp_path: Path, nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ktrdr.hosts")
    with (
        scripted_host(tmp_path / "host") as host,
        backend_on(tmp_path / "backend", nobody, host.address) as front,
    ):
        _busy(host, 3)
        assert host.address == _trainer(front, front.train())
        assert any(nobody in text and "passed over" in text for text in caplog.messages)


@pytest.mark.parametrize("before", [0, 1])
def test_a_host_that_says_nothing_is_passed_over(tmp_path: Path, before: int) -> None:
    with (
        _hosts(tmp_path, 2) as (frozen, healthy),
        closing(Relay(frozen.address)) as relay,
        backend_on(tmp_path / "backend", relay.address, healthy.address) as front,
    ):
        for _ in range(before):  # there is a connection to it, or there is none yet
            front.train()
        relay.freeze()
        _busy(healthy, 3)
        assert healthy.address == _trainer(front, front.train())
        relay.thaw()
        assert before == len(frozen.works), "it may have been asked, never told"
        assert relay.address == _trainer(front, front.train())


def test_a_host_that_stops_is_passed_over(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 2) as (stopping, healthy),
        backend_on(tmp_path / "backend", stopping.address, healthy.address) as front,
    ):
        stopping.operations.refuse_starts()
        _busy(healthy, 2)
        assert healthy.address == _trainer(front, front.train())
        assert not stopping.operations._registry._live


def test_a_host_that_goes_down_between_asking_and_telling_is_passed_over(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 2) as (first, second),
        closing(Relay(first.address)) as relay,
        backend_on(tmp_path / "backend", relay.address, second.address) as front,
    ):
        _busy(second, 2)
        front.train(request_id="warm")  # the connection is there
        _busy(second, 2)

        def cut(_: str) -> None:
            """Cut, when the other is asked how busy it is, and wait until that is noticed."""
            relay.cut()
            states: list[grpc.ChannelConnectivity] = []
            channel = front.backend.channels.to(relay.address)._connection.channel
            channel.subscribe(states.append)
            eventually(lambda: bool(states) and states[-1] != grpc.ChannelConnectivity.READY)
            channel.unsubscribe(states.append)

        second.servicer.before = cut
        operation_id = front.train(request_id="next")
        second.servicer.before = lambda _: None
        assert second.address == _trainer(front, operation_id)
        assert host_id(operation_id) not in first.works


def test_a_host_is_taken_again_as_soon_as_it_is_back(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 2) as (first, second),
        closing(Relay(first.address)) as relay,
        backend_on(tmp_path / "backend", relay.address, second.address) as front,
    ):
        relay.cut()
        assert second.address == _trainer(front, front.train())
        relay.restore()
        assert relay.address == _trainer(front, front.train())


# -------------------------------------------------------------------- nobody there


def _refused_start(front: RunningBackend, request_id: str) -> Refusal:
    return refused(lambda: front.train(request_id=request_id))


def test_if_all_are_full_the_client_is_told_when_to_come_back_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    with (
        _hosts(tmp_path, 2, workers=1, queue_limit=0) as hosts,
        backend_on(tmp_path / "backend", *(host.address for host in hosts)) as front,
    ):
        for host in hosts:
            _busy(host, 1)
        refusal = _refused_start(front, "late")
        assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "WORKERS_BUSY") == (
            refusal.code,
            refusal.reason,
        )
        assert "ktrdr" == refusal.domain
        assert refusal.retry_after
        assert {host.address for host in hosts} == set(refusal.metadata["targets"].split(","))
        assert all(host.address in refusal.message for host in hosts)
        assert _nothing_left(front, "op_training_late")
        assert [1, 1] == [host.operations._store.count(_ALL) for host in hosts]

        for work in list(hosts[1].works.values()):
            work.finish()
        eventually(lambda: not hosts[1].pool._threads)
        again = front.train(request_id="late", seed=9)  # the id is free, even for another request
        assert hosts[1].address == _trainer(front, again)


def test_if_none_answers_the_client_is_told_when_to_come_back_and_nothing_is_left(
    tmp_path: Path, nobody: str
) -> None:
    with (
        scripted_host(tmp_path / "host") as host,
        closing(Relay(host.address)) as relay,
        backend_on(tmp_path / "backend", nobody, relay.address) as front,
    ):
        relay.cut()
        refusal = _refused_start(front, "late")
        assert (grpc.StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
        assert refusal.retry_after
        assert f"{nobody},{relay.address}" == refusal.metadata["targets"]
        assert nobody in refusal.message
        assert _nothing_left(front, "op_training_late")
        assert not host.works

        relay.restore()
        operation_id = front.train(request_id="late", seed=9)
        host.work(operation_id).finish()
        assert COMPLETED == front.ended(operation_id).status


def test_if_the_only_host_is_frozen_the_client_is_answered_within_its_deadline(
    tmp_path: Path,
) -> None:
    with (
        scripted_host(tmp_path / "host") as host,
        closing(Relay(host.address)) as relay,
        backend_on(tmp_path / "backend", relay.address) as front,
    ):
        relay.freeze()
        request = training_pb.StartTrainingRequest(request_id="late", strategy_yaml=SMALL)
        refusal = refused(lambda: front.training.StartTraining(request, timeout=3))
        assert (grpc.StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
        assert refusal.retry_after
        assert _nothing_left(front, "op_training_late")
        relay.thaw()
        assert not host.works


def test_one_full_and_one_down_is_no_room(tmp_path: Path, nobody: str) -> None:
    with (
        scripted_host(tmp_path / "host", workers=1, queue_limit=0) as host,
        backend_on(tmp_path / "backend", nobody, host.address) as front,
    ):
        _busy(host, 1)
        refusal = _refused_start(front, "late")
        assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "WORKERS_BUSY") == (
            refusal.code,
            refusal.reason,
        )
        assert refusal.retry_after
        assert _nothing_left(front, "op_training_late")


def test_if_every_host_stops_the_client_may_come_back(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path / "host") as host,
        backend_on(tmp_path / "backend", host.address) as front,
    ):
        host.operations.refuse_starts()
        refusal = _refused_start(front, "late")
        assert grpc.StatusCode.UNAVAILABLE == refusal.code
        assert refusal.retry_after
        assert _nothing_left(front, "op_training_late")


def test_a_bad_request_is_no_reason_to_try_another_host(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 2) as hosts,
        backend_on(tmp_path / "backend", *(host.address for host in hosts)) as front,
    ):
        starts: list[str] = []
        hosts[0].before_start = lambda: starts.append("first")
        hosts[1].before_start = lambda: starts.append("second")
        refusal = refused(lambda: front.train(request_id="odd", symbols=["NOPE"]))
        assert {"symbols[0]"} == set(refusal.fields)
        assert _nothing_left(front, "op_training_odd")
        assert not starts


def test_a_host_that_knows_the_id_for_another_request_is_no_half_started_operation(
    tmp_path: Path,
) -> None:
    with (
        scripted_host(tmp_path / "host") as host,
        backend_on(tmp_path / "one", host.address) as one,
        backend_on(tmp_path / "other", host.address) as other,
    ):
        one.train(request_id="same", seed=1)
        refusal = refused(lambda: other.train(request_id="same", seed=2))
        assert (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") == (
            refusal.code,
            refusal.reason,
        )
        assert _nothing_left(other, "op_training_same")


def test_two_backends_share_a_host_and_the_same_request_is_the_same_training(
    tmp_path: Path,
) -> None:
    with (
        scripted_host(tmp_path / "host") as host,
        backend_on(tmp_path / "one", host.address) as one,
        backend_on(tmp_path / "other", host.address) as other,
    ):
        operation_id = one.train(request_id="same", seed=1)
        assert operation_id == other.train(request_id="same", seed=1)
        work = host.work(operation_id)
        work.report_epochs(2)
        assert one.epochs(operation_id) == other.epochs(operation_id) == [1, 2]
        work.finish()
        ends = [front.ended(operation_id) for front in (one, other)]
        assert [COMPLETED] * 2 == [end.status for end in ends]
        assert ends[0].end_time == ends[1].end_time
        assert 1 == len(host.works)


def test_many_starts_at_once_take_no_more_than_all_hosts_have(tmp_path: Path) -> None:
    with (
        _hosts(tmp_path, 2, workers=2, queue_limit=1, limits=ServerLimits(start=12)) as hosts,
        backend_on(
            tmp_path / "backend", *(host.address for host in hosts), start_limit=12
        ) as front,
    ):

        def start(number: int) -> str:
            try:
                return front.train(request_id=f"n{number}")
            except grpc.RpcError:
                return ""

        with ThreadPoolExecutor(12) as clients:
            ids = [each for each in clients.map(start, range(12), timeout=PATIENCE) if each]
        assert 6 == len(ids) == _total(front)
        kept = sum(host.operations._store.count(_ALL) for host in hosts)
        assert 6 == kept
        assert [3, 3] == [
            [_trainer(front, each) for each in ids].count(host.address) for host in hosts
        ]

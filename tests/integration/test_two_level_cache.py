"""Two caches and one bound: what an answer tells of its age is never less than the truth.

A backend and a host on real sockets share a clock that only the test moves. It
moves by 1/64 s and multiples, which floats and the wire hold exactly, so ages
are compared exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from math import inf
from pathlib import Path
from random import Random
from typing import ClassVar

import grpc
import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktrdr.operations.v1 import operation_pb2, operations_service_pb2_grpc
from ktrdr.operations.v1 import operations_service_pb2 as pb
from shared.operations.conversion import duration, seconds
from shared.rpc.errors import UnavailableError
from tests.integration.running import RunningBackend, running_backend
from tests.support.clock import FakeClock
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.scripted_work import PATIENCE, ScriptedWork

TICK = 1 / 64
EPOCHS = 1000
BRIDGE = operation_pb2.FRESHNESS_SOURCE_BRIDGE
REMOTE = operation_pb2.FRESHNESS_SOURCE_REMOTE
POLLERS, POLLS = 20, 50


@dataclass(frozen=True, slots=True)
class Levels:
    """A backend in front of a host, each with its cache, and their one clock."""

    running: RunningBackend
    host: ScriptedHost
    direct: operations_service_pb2_grpc.OperationsServiceStub
    """To the host itself, as another of its readers."""
    clock: FakeClock
    backend_ttl: float
    host_ttl: float
    numbers: Iterator[int] = field(default_factory=count)

    @contextmanager
    def training(self) -> Iterator[tuple[str, ScriptedWork]]:
        """A training at the host, read through the backend; the only one that is open."""
        operation_id = self.running.train(request_id=f"training_{next(self.numbers)}")
        work = self.host.work(operation_id)
        try:
            yield operation_id, work
        finally:
            self.host.servicer.before = lambda _: None
            self.host.servicer.after_get = lambda: None
            work.finish()
            self.clock.advance(60.0)  # past what is remembered of failures
            self.running.ended(operation_id)


class RestlessClock(FakeClock):
    """A clock that goes on a little whenever somebody looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self._random = Random(1)  # noqa: S311  # a schedule is no secret

    def monotonic(self) -> float:
        """Seconds, after a step."""
        # Slow queries are timed as well, so a listing looks more often than answers are old.
        self.advance(self._random.randrange(5) * TICK)
        return super().monotonic()


@contextmanager
def two_levels(
    home: Path, backend_ttl: float, host_ttl: float, clock: FakeClock | None = None
) -> Iterator[Levels]:
    """Serve both, on a clock that stands still unless given another."""
    clock = clock or FakeClock()
    with (
        scripted_host(home, cache_ttl=host_ttl, clock=clock) as host,
        running_backend(
            home,
            clock=clock,
            cache_ttl=backend_ttl,
            training_mode="host",
            TRAINING_HOST_SERVICE_URL=(host.address,),
        ) as running,
        grpc.insecure_channel(host.address) as channel,
    ):
        direct = operations_service_pb2_grpc.OperationsServiceStub(channel)
        yield Levels(running, host, direct, clock, backend_ttl, host_ttl)


@pytest.fixture(
    scope="module",
    params=[(1.0, 1.0), (1.0, 5.0), (5.0, 1.0), (0.0, 1.0)],
    ids="{0[0]}-{0[1]}".format,
)
def levels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Levels]:
    """Backend and host, by their TTLs."""
    with two_levels(tmp_path_factory.mktemp("home"), *request.param) as levels:
        yield levels


# ------------------------------------------------------------------- schedules


@dataclass(frozen=True, slots=True)
class Advance:
    """Time goes by."""

    by: float


@dataclass(frozen=True, slots=True)
class Report:
    """The worker reports the time."""


@dataclass(frozen=True, slots=True)
class Read:
    """Somebody looks, and something happens at the host meanwhile."""

    way: str
    staleness: float | None = None
    """Strict; None leaves it to the service."""
    before: float = 0.0
    """Seconds the host takes until it looks."""
    after: float = 0.0
    """Seconds its answer takes."""
    reports: bool = False
    """Whether the worker reports after each of these times."""
    fails: bool = False
    """Whether the host refuses, if it is asked."""


Step = Advance | Report | Read

times = st.one_of(st.integers(0, 200), st.sampled_from([0, 1, 31, 32, 33, 63, 64, 65, 320]))
spans = times.map(lambda ticks: ticks * TICK)
delays = st.one_of(st.just(0.0), st.just(0.0), spans)
ways = st.sampled_from(["get", "get", "get", "list", "metrics", "host"])


def _read(
    way: str, staleness: float | None, before: float, after: float, reports: bool, fails: bool
) -> Read:
    """A read as drawn, without what its way cannot have."""
    takes_bound, asks_host = way in {"get", "host"}, way != "host"
    return Read(
        way, staleness if takes_bound else None, before, after, reports, fails and asks_host
    )


steps: st.SearchStrategy[Step] = st.one_of(
    spans.map(Advance),
    st.builds(Report),
    st.builds(
        _read,
        ways,
        st.one_of(st.none(), st.just(0.0), spans),
        delays,
        delays,
        st.booleans(),
        st.sampled_from([False] * 7 + [True]),
    ),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One time the host was asked by the backend and answered."""

    at: float
    cached: bool
    """The host did not look at the worker for it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one answer told."""

    metrics_count: int
    freshness: operation_pb2.Freshness
    metrics: Sequence[operation_pb2.Metric] | None = None


class Schedule:
    """Carries out steps and holds every answer against what is true."""

    KEPT_FAILURE: ClassVar[float] = 1.0

    def __init__(self, levels: Levels, operation_id: str, work: ScriptedWork) -> None:
        self._levels, self._clock = levels, levels.clock
        self._operation_id, self._work = operation_id, work
        self._reported: list[float] = []
        self._asked_at, self._reads_before = 0.0, 0
        self._asks: list[Ask] = []
        self._failed_until = -inf
        self.answers = 0

    def take(self, step: Step) -> None:
        """Take a step; fail if an answer is older than it says or than it may be."""
        match step:
            case Advance():
                self._clock.advance(step.by)
            case Report():
                self._report()
            case Read():
                self._look(step)

    def _report(self) -> None:
        at, epoch = self._clock.monotonic(), len(self._reported)
        self._work.step(lambda bridge: bridge.on_epoch(epoch, EPOCHS, {"at": at}))
        self._reported.append(at)

    # ------------------------------------------------------ what the host does

    def _host_does(self, read: Read) -> None:
        """Have the host do, when it is asked next, what the step says."""
        servicer = self._levels.host.servicer

        def before(method: str) -> None:
            if method != "GetOperation":
                return
            self._asked_at, self._reads_before = self._clock.monotonic(), self._work.bridge.reads
            self._pass(read.before, read)
            if read.fails:
                self._failed_until = self._clock.monotonic() + self._memory
                raise UnavailableError("The host is not well.")

        def after() -> None:
            if read.way == "host":
                return  # an age is told as of the answer, before its way to the reader
            self._asks.append(Ask(self._asked_at, self._work.bridge.reads == self._reads_before))
            self._pass(read.after, read)

        servicer.before, servicer.after_get = before, after

    def _pass(self, time: float, read: Read) -> None:
        self._clock.advance(time)
        if time and read.reports:
            self._report()

    @property
    def _memory(self) -> float:
        return max(self._levels.backend_ttl, self.KEPT_FAILURE)

    # ------------------------------------------------------------ what is told

    def _look(self, read: Read) -> None:
        self._host_does(read)
        began, asks = self._clock.monotonic(), len(self._asks)
        well = self._asked_for(read) == 0 or began >= self._failed_until
        seen = self._ask(read)
        if isinstance(seen, grpc.RpcError):
            assert StatusCode.UNAVAILABLE is seen.code()
            assert read.staleness is not None
            assert read.fails or not (well and self._in_time(read, began))
            return
        self.answers += 1
        self._check_truth(seen)
        self._check_bound(read, seen, began, well=well)
        if read.way == "host":
            self._check_hops(seen.freshness, (BRIDGE,))
        else:
            self._check_hops(seen.freshness, (REMOTE, BRIDGE))
            self._check_path(seen.freshness, asked=len(self._asks) > asks)

    def _ask(self, read: Read) -> Seen | grpc.RpcError:
        try:
            return self._answer(read)
        except grpc.RpcError as error:
            return error

    def _answer(self, read: Read) -> Seen:
        """Send what the step says."""
        stub, operation_id = self._levels.running.operations, self._operation_id
        if read.way == "metrics":
            page = stub.GetMetrics(
                pb.GetMetricsRequest(operation_id=operation_id, page_size=EPOCHS)
            )
            return Seen(page.new_cursor, page.freshness, page.metrics)
        if read.way == "list":
            (row,) = stub.ListOperations(pb.ListOperationsRequest(active_only=True)).operations
            assert operation_id == row.operation_id
            return Seen(row.metrics_count, row.freshness)
        if read.way == "host":
            stub, operation_id = self._levels.direct, "host_training_" + operation_id
        bound = None if read.staleness is None else duration(read.staleness)
        answer = stub.GetOperation(
            pb.GetOperationRequest(operation_id=operation_id, max_staleness=bound, metrics_cursor=0)
        )
        return Seen(answer.operation.metrics_count, answer.operation.freshness, answer.metrics)

    def _check_truth(self, seen: Seen) -> None:
        """Whatever was reported before the instant told is in the answer, in order."""
        known, missing = seen.metrics_count, self._reported[seen.metrics_count :]
        if seen.metrics is not None:
            assert self._reported[:known] == [metric.values["at"] for metric in seen.metrics]
        true_age = self._clock.monotonic() - missing[0] if missing else 0.0
        assert true_age <= seconds(seen.freshness.age)

    def _check_bound(self, read: Read, seen: Seen, began: float, *, well: bool) -> None:
        """It is within its bound, or was allowed not to be and says why."""
        age = seconds(seen.freshness.age)
        if not seen.freshness.HasField("refresh_error"):
            assert age <= self._bound(read, began)
            return
        assert read.staleness is None
        assert read.way != "host"
        if read.way != "list":  # which gives the host a second, of real time too
            assert read.fails or not (well and self._in_time(read, began))

    def _bound(self, read: Read, began: float) -> float:
        """How old an answer may be; one that is read now is as old as the call took."""
        return self._asked_for(read) or self._clock.monotonic() - began

    def _asked_for(self, read: Read) -> float:
        ttl = self._levels.host_ttl if read.way == "host" else self._levels.backend_ttl
        return ttl if read.staleness is None else read.staleness

    def _in_time(self, read: Read, began: float) -> bool:
        """Whether the host was fast enough for the bound, whatever its cache held."""
        if self._asked_for(read) == 0:
            return True  # what is read now is taken, however long it takes
        return self._clock.monotonic() - began <= self._asked_for(read) / 2

    def _check_hops(self, freshness: operation_pb2.Freshness, sources: Sequence[int]) -> None:
        """The path names each process with its source; its first hop is the answer."""
        instances = [self._levels.running.backend.operations.owner.instance_id]
        instances.append(self._levels.host.instance.id)
        told = [(hop.instance, hop.source) for hop in freshness.path]
        assert told == list(zip(instances[-len(sources) :], sources, strict=True))
        first = freshness.path[0]
        assert (first.source, first.cached, first.age) == (
            freshness.source,
            freshness.cached,
            freshness.age,
        )

    def _check_path(self, freshness: operation_pb2.Freshness, *, asked: bool) -> None:
        """Through the backend: both caches as they were, and ages that add up."""
        here, there = freshness.path
        assert here.cached is not asked
        if not self._asks:
            return  # known from the start of the training
        last = self._asks[-1]
        assert there.cached is last.cached
        assert seconds(here.age) == seconds(there.age) + self._clock.monotonic() - last.at


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schedule=st.lists(steps, min_size=10, max_size=60))
def test_an_answer_is_never_older_than_it_says_nor_than_it_may_be(
    levels: Levels, schedule: list[Step]
) -> None:
    with levels.training() as (operation_id, work):
        told = Schedule(levels, operation_id, work)
        for step in schedule:
            told.take(step)
        told.take(Read("get", 0.0))
    assert told.answers > 0


# --------------------------------------------------------------------- pollers


def _poll(levels: Levels, operation_id: str, way: int) -> operation_pb2.Freshness:
    """Look without a bound, in one of three ways."""
    stub = levels.running.operations
    if way == 0:
        (row,) = stub.ListOperations(pb.ListOperationsRequest(active_only=True)).operations
        return row.freshness
    if way == 1:
        return stub.GetMetrics(pb.GetMetricsRequest(operation_id=operation_id)).freshness
    return stub.GetOperation(pb.GetOperationRequest(operation_id=operation_id)).operation.freshness


def _thousand_polls(poll: Callable[[int], None]) -> None:
    """Have 1 000 calls made by 20 callers at once."""

    def poll_on(caller: int) -> None:
        for turn in range(POLLS):
            poll(caller + turn)

    with ThreadPoolExecutor(POLLERS) as callers:
        for done in [callers.submit(poll_on, caller) for caller in range(POLLERS)]:
            done.result(PATIENCE)


@pytest.mark.parametrize("ttls", [(1.0, 1.0), (1.0, 5.0)], ids="{0[0]}-{0[1]}".format)
def test_a_thousand_pollers_cost_the_host_one_read_per_ttl(
    tmp_path: Path, ttls: tuple[float, float]
) -> None:
    with (
        two_levels(tmp_path, *ttls) as levels,
        levels.training() as (operation_id, work),
    ):
        levels.running.operation(operation_id)
        levels.host.calls.clear()
        work.bridge.reads = 0

        def poll(turn: int) -> None:
            freshness = _poll(levels, operation_id, turn % 3)
            assert seconds(freshness.age) <= 1.0 or freshness.HasField("refresh_error")

        for expired in range(4):
            _thousand_polls(poll)
            assert expired == levels.host.calls["GetOperation"]
            assert expired == work.bridge.reads
            levels.clock.advance(levels.backend_ttl + TICK)


@pytest.mark.parametrize("seed", range(3))
def test_however_time_goes_by_a_thousand_pollers_cost_one_read_per_ttl(
    tmp_path: Path, seed: int
) -> None:
    random = Random(seed)  # noqa: S311  # a schedule is no secret
    moving = threading.Lock()  # guards the clock
    with (
        two_levels(tmp_path, 1.0, 1.0) as levels,
        levels.training() as (operation_id, work),
    ):
        levels.running.operation(operation_id)
        levels.host.calls.clear()
        work.bridge.reads = 0
        began = levels.clock.monotonic()

        def poll(turn: int) -> None:
            freshness = _poll(levels, operation_id, turn % 3)
            assert seconds(freshness.age) <= 1.0 or freshness.HasField("refresh_error")
            with moving:
                levels.clock.advance(random.choice([0.0, 0.0, TICK / 4, TICK]))

        _thousand_polls(poll)
        passed = levels.clock.monotonic() - began
        assert 3.0 < passed
        assert 1 <= levels.host.calls["GetOperation"] <= passed / levels.backend_ttl
        assert work.bridge.reads <= levels.host.calls["GetOperation"]


@pytest.mark.parametrize("way", range(3), ids=["list", "metrics", "get"])
def test_time_that_goes_by_while_an_answer_is_made_counts(tmp_path: Path, way: int) -> None:
    with (
        two_levels(tmp_path, 1.0, 1.0, RestlessClock()) as levels,
        levels.training() as (operation_id, _),
    ):
        answers = [_poll(levels, operation_id, way) for _ in range(300)]
    late = [answer for answer in answers if seconds(answer.age) > 1.0]
    assert [] == [answer for answer in late if not answer.HasField("refresh_error")]
    assert any(answer.cached for answer in answers)
    assert len(late) < len(answers) / 2

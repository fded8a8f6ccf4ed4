"""What users found with real hosts: each of these once went wrong."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest
from grpc import StatusCode

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from tests.integration.hosted import backend_on, hosted, let_end
from tests.integration.refusals import outcome_of, refused
from tests.integration.running import SMALL, RunningBackend, running_backend
from tests.support.eventually import eventually
from tests.support.hosts import scripted_host

TIMEOUT = 20.0


def _start(running: RunningBackend, request_id: str) -> str:
    request = training_pb.StartTrainingRequest(strategy_yaml=SMALL, request_id=request_id)
    answer = running.training.StartTraining(request, timeout=TIMEOUT)
    operation_id: str = answer.operation.operation_id
    return operation_id


def test_a_backend_taken_for_a_host_leaves_no_operation_that_can_neither_end_nor_be_cancelled(
    tmp_path: Path,
) -> None:
    with (
        running_backend(tmp_path / "other") as other,
        backend_on(tmp_path / "home", other.address) as running,
    ):
        refusal = refused(lambda: _start(running, "mistaken"))

        assert "NOT_A_HOST" == refusal.reason
        assert not running.operations.ListOperations(pb.ListOperationsRequest()).operations
        eventually(lambda: not list(other.backend.operations._local()))


def test_the_same_request_after_a_restart_of_the_backend_goes_to_the_host_that_trains_it(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        hosts = [stack.enter_context(scripted_host(tmp_path / str(n))) for n in range(2)]
        targets = [host.address for host in hosts]
        with backend_on(tmp_path / "home", *targets) as running:
            operation_id = _start(running, "again")
            busy = [host for host in hosts if host.works]
            busy[0].work(operation_id)
        with backend_on(tmp_path / "home", *targets) as running:
            assert operation_id == _start(running, "again")

            assert 1 == sum(len(host.works) for host in hosts), "it runs twice"
        let_end(*hosts)


@pytest.mark.parametrize("length", [117, 128])
def test_a_request_id_that_a_backend_takes_is_one_that_its_host_takes(
    tmp_path: Path, length: int
) -> None:
    """Either the backend refuses it by itself, or it trains."""
    request_id = "op_training_" + "x" * length
    with (
        scripted_host(tmp_path / "host") as host,
        backend_on(tmp_path / "home", host.address) as running,
    ):
        outcome = outcome_of(lambda: _start(running, request_id))

        assert (outcome is StatusCode.OK) == bool(host.calls["ListOperations"]), "the host refused"
        let_end(host)


def test_reading_an_operation_tells_its_host_also_after_a_listing_could_not(tmp_path: Path) -> None:
    """The listing says that reading the operation by itself asks again.

    That start takes longer than an answer may be old; the answer that comes after it is young.
    """
    with hosted(tmp_path, cache_ttl=0.5) as pair:
        pair.relay.before(b"fuzzy_sets", pair.relay.cut)  # in every start, in no other call
        operation_id = _start(pair.running, "unknown")
        assert not pair.host.works

        pair.host.before_start = lambda: Event().wait(0.6)
        pair.relay.restore()
        eventually(lambda: _listed_reason(pair.running) == "START_UNKNOWN")
        error = pair.look(operation_id).operation.freshness.refresh_error
        assert error.reason == "", error
        assert pair.host.works


def _listed_reason(running: RunningBackend) -> str:
    """Why the only operation of a listing is older than it may be."""
    (row,) = running.operations.ListOperations(pb.ListOperationsRequest()).operations
    reason: str = row.freshness.refresh_error.reason
    return reason


def test_the_owner_is_the_one_that_took_the_start_not_the_one_that_was_there_before(
    tmp_path: Path,
) -> None:
    """Between being asked and being told, another instance came to the host's address."""
    with hosted(tmp_path) as pair, scripted_host(tmp_path / "second") as second:
        pair.relay.before(b"fuzzy_sets", lambda: pair.lead_to(second.address))
        operation_id = _start(pair.running, "replaced")
        assert [len(pair.host.works), len(second.works)] == [0, 1]

        assert "" == pair.refresh_error(operation_id).reason
        let_end(second)

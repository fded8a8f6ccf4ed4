import threading
from collections.abc import Callable

import grpc
import pytest

from backend.cli.client import Backend
from backend.cli.examination import DEADLINE, TOGETHER, examine
from backend.cli.failures import RpcFailedError
from backend.cli.observation import Observation
from backend.cli.pace import Pace
from ktrdr.operations.v1 import operation_pb2 as op
from ktrdr.operations.v1 import operations_service_pb2 as service
from tests.unit.cli.command_line import FakeTime
from tests.unit.cli.open_operations import HOST, each, listed, working
from tests.unit.cli.samples import COMPLETED, ID, look, operation
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

UNREACHABLE = Refusal(
    grpc.StatusCode.UNAVAILABLE, "Nobody.", "HOST_UNREACHABLE", metadata={"target": HOST}
)
BUSY = Refusal(grpc.StatusCode.UNAVAILABLE, "Full.", "REFRESH_BUSY", retry_after=0.3)


@pytest.fixture
def look_at_all(scripted: ScriptedBackend, fake_time: FakeTime) -> Callable[[], list[Observation]]:
    """Examine the scripted backend."""

    def look_at_all() -> list[Observation]:
        with Backend(scripted.address) as backend:
            return examine(backend, Pace(fake_time.pause, fake_time.monotonic))

    return look_at_all


Examine = Callable[[], list[Observation]]


def named(*ids: str, host: str = "") -> list[op.Operation]:
    return [working(operation_id=id_, host=host) for id_ in ids]


def as_asked(
    *operations: op.Operation,
) -> Callable[[service.GetOperationRequest], service.GetOperationResponse]:
    """Answer GetOperation with the operation that is asked for."""
    by_id = {one.operation_id: one for one in operations}
    return lambda request: look(by_id[request.operation_id])


def asked_for(scripted: ScriptedBackend) -> list[str]:
    return sorted(request.operation_id for request in scripted.requests["GetOperation"])


def test_only_what_is_open_is_listed_all_pages_of_it(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    first, second = listed(*named("a", "b")), listed(*named("c"))
    first.next_page_token = "2"  # noqa: S105  # a page's
    scripted.script("ListOperations", first, second)
    scripted.script("GetOperation", as_asked(*named("a", "b", "c")))

    assert ["a", "b", "c"] == [one.operation.operation_id for one in look_at_all()]
    assert all(request.active_only for request in scripted.requests["ListOperations"])
    assert "2" == scripted.requests["ListOperations"][1].page_token


def test_each_is_read_now_with_its_last_metrics(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    row, now = working(message="old"), working(message="new")
    row.metrics_count = 70
    scripted.script("ListOperations", listed(row))
    scripted.script("GetOperation", look(now, *each(1, last=1, count=25)))

    (seen,) = look_at_all()
    (request,) = scripted.requests["GetOperation"]
    assert (ID, True, 50) == (request.operation_id, request.force_refresh, request.metrics_cursor)
    assert ("new", True, None) == (
        seen.operation.progress.message,
        seen.is_current,
        seen.trouble,
    )
    assert 20 == len(seen.metrics)


def test_a_log_far_longer_than_was_listed_is_read_at_its_end(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    now = working()
    now.metrics_count = 5_000
    scripted.script("ListOperations", listed(working()))
    scripted.script(
        "GetOperation",
        look(now, *each(1, last=4_000), has_more=True),
        look(now, *each(1, last=3)),
    )

    (seen,) = look_at_all()
    assert [0, 4_980] == [r.metrics_cursor for r in scripted.requests["GetOperation"]]
    assert each(1, last=3) == seen.metrics


@pytest.mark.parametrize(
    "reply",
    [
        look(operation(COMPLETED)),
        Refusal(grpc.StatusCode.NOT_FOUND, "None.", "OPERATION_NOT_FOUND"),
    ],
)
def test_what_has_ended_meanwhile_is_no_patient(
    look_at_all: Examine,
    scripted: ScriptedBackend,
    reply: service.GetOperationResponse | Refusal,
) -> None:
    scripted.script("ListOperations", listed(working()))
    scripted.script("GetOperation", reply)
    assert [] == look_at_all()


def test_a_read_that_fails_leaves_what_is_last_known_and_why(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    scripted.script("ListOperations", listed(working(host=HOST, message="old")))
    scripted.script("GetOperation", UNREACHABLE)

    (seen,) = look_at_all()
    assert ("old", False) == (seen.operation.progress.message, seen.is_current)
    assert seen.trouble is not None
    assert ("HOST_UNREACHABLE", "Nobody.", {"target": HOST}) == (
        seen.trouble.reason,
        seen.trouble.message,
        seen.trouble.metadata,
    )


def test_a_silent_host_is_asked_for_few_of_its_operations_and_told_of_all(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    ids = [f"op_{number}" for number in range(50)]
    scripted.script("ListOperations", listed(*named(*ids, host=HOST)))
    scripted.script("GetOperation", UNREACHABLE)

    found = look_at_all()
    assert ids == [one.operation.operation_id for one in found]
    assert {"HOST_UNREACHABLE"} == {one.trouble.reason for one in found if one.trouble}
    assert not any(one.is_current for one in found)
    assert len(asked_for(scripted)) < 10


def test_what_is_silent_somewhere_unnamed_says_nothing_about_the_rest(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    local = named("a", "b", "c", "d", "e", "f")
    answers = as_asked(*local)
    scripted.script("ListOperations", listed(*local))
    scripted.script(
        "GetOperation",
        lambda request: UNREACHABLE if request.operation_id == "a" else answers(request),
    )
    assert [False, *[True] * 5] == [one.is_current for one in look_at_all()]


def test_other_hosts_are_asked_while_one_keeps_its_callers_waiting(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    slow, quick = named("s1", "s2", "s3", "s4", host="slow:1"), named("q1", "q2", host="quick:1")
    answers, quick_done = as_asked(*slow, *quick), threading.Event()
    left = {"q1", "q2"}

    def answer(request: service.GetOperationRequest) -> service.GetOperationResponse:
        if request.operation_id.startswith("s"):
            assert quick_done.wait(10), "the quick host waits for the slow one"
        else:
            left.discard(request.operation_id)
            if not left:
                quick_done.set()
        return answers(request)

    scripted.script("ListOperations", listed(*slow, *quick))
    scripted.script("GetOperation", answer)
    assert 6 == len(look_at_all())


def test_when_the_time_is_up_what_was_listed_has_to_do(scripted: ScriptedBackend) -> None:
    fresh, stale, unstored = named("a", "b", "c")
    stale.freshness.refresh_error.reason = "REFRESH_BUSY"
    unstored.freshness.refresh_error.reason = "STORE_UNAVAILABLE"
    scripted.script("ListOperations", listed(fresh, stale, unstored))
    times = iter([0.0, TOGETHER, TOGETHER, TOGETHER])

    with Backend(scripted.address) as backend:
        found = examine(backend, Pace(monotonic=times.__next__))
    assert [] == asked_for(scripted)
    assert [True, False, True] == [one.is_current for one in found]
    assert [None, "REFRESH_BUSY", "STORE_UNAVAILABLE"] == [
        one.trouble.reason if one.trouble else None for one in found
    ]


def test_a_backend_that_is_too_slow_for_one_read_leaves_it_unknown(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    scripted.script("ListOperations", listed(working()))
    scripted.script("GetOperation", Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "late"))
    (seen,) = look_at_all()
    assert seen.trouble is not None
    assert ("", False) == (seen.trouble.reason, seen.is_current)
    assert f"did not answer within {DEADLINE:g} s" in seen.trouble.message


def test_where_there_was_no_room_is_asked_once_more(
    look_at_all: Examine, scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("ListOperations", listed(working()))
    scripted.script("GetOperation", BUSY, look(working()))
    (seen,) = look_at_all()
    assert seen.is_current
    assert [0.3] == fake_time.pauses


def test_where_there_is_no_room_at_all_is_asked_no_more_than_that(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    scripted.script("ListOperations", listed(working()))
    scripted.script("GetOperation", BUSY)
    (seen,) = look_at_all()
    assert not seen.is_current
    assert [ID, ID] == asked_for(scripted)


def test_a_backend_that_goes_away_ends_the_look(
    look_at_all: Examine, scripted: ScriptedBackend
) -> None:
    scripted.script("ListOperations", listed(*named("a", "b", "c", "d", "e", "f", "g")))
    scripted.script("GetOperation", Refusal(grpc.StatusCode.UNAVAILABLE, "gone"))
    with pytest.raises(RpcFailedError, match="no backend answers"):
        look_at_all()

import grpc
import pytest

from backend.cli.client import Backend
from backend.cli.failures import CommandError, ExitCode, RpcFailedError
from backend.cli.pace import Pace
from backend.cli.watch import Look, OperationWatch, Outage
from tests.unit.cli.command_line import FakeTime
from tests.unit.cli.samples import (
    COMPLETED,
    ID,
    PENDING,
    a_whole_training,
    epoch,
    look,
    operation,
)
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "gone")


def watch(
    scripted: ScriptedBackend, fake_time: FakeTime, *, known: bool = False
) -> list[Look | Outage]:
    pace = Pace(pause=fake_time.pause, monotonic=fake_time.monotonic)
    with Backend(scripted.address) as backend:
        return list(OperationWatch(backend, ID, pace, known=known).looks())


def test_one_call_per_look_follows_the_cursor(
    scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("GetOperation", *a_whole_training())
    seen = watch(scripted, fake_time)
    steps = [metric.step for one in seen if isinstance(one, Look) for metric in one.metrics]
    assert steps == [1, 2, 3]
    cursors = [request.metrics_cursor for request in scripted.requests["GetOperation"]]
    assert cursors == [0, 0, 0, 1, 2]


def test_more_metrics_are_read_without_a_pause(
    scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("GetOperation", *a_whole_training())
    watch(scripted, fake_time)
    assert fake_time.pauses == [0.5, 0.5, 0.5]


def test_the_metrics_left_at_the_end_are_read_before_the_watch_ends(
    scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script(
        "GetOperation",
        look(operation(COMPLETED), epoch(1), has_more=True),
        look(operation(COMPLETED), epoch(2)),
    )
    assert len(watch(scripted, fake_time)) == 2


def test_a_shorter_log_after_a_restart_sets_the_cursor_back(
    scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script(
        "GetOperation",
        look(operation(), epoch(5), new_cursor=5),
        look(operation(), new_cursor=2),
        look(operation(COMPLETED), epoch(3), new_cursor=3),
    )
    watch(scripted, fake_time)
    assert [r.metrics_cursor for r in scripted.requests["GetOperation"]] == [0, 5, 2]


def test_a_short_outage_is_borne_and_told(scripted: ScriptedBackend, fake_time: FakeTime) -> None:
    scripted.script(
        "GetOperation", look(operation(PENDING)), UNAVAILABLE, look(operation(COMPLETED))
    )
    told = [one.message for one in watch(scripted, fake_time) if isinstance(one, Outage)]
    assert told == [f"No backend answers at {scripted.address}. Trying again for 30 s."]


def test_a_server_that_names_a_time_to_come_back_is_left_alone_until_then(
    scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    busy = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "Busy.", "BUSY", retry_after=3.0)
    scripted.script("GetOperation", look(operation()), busy, look(operation(COMPLETED)))
    watch(scripted, fake_time)
    assert fake_time.pauses == [0.5, 3.0]


def test_a_long_outage_ends_the_watch(scripted: ScriptedBackend, fake_time: FakeTime) -> None:
    scripted.script("GetOperation", look(operation()), UNAVAILABLE)
    with pytest.raises(CommandError, match=r"no backend answers .* Gave up after 30 s\.") as lost:
        watch(scripted, fake_time)
    assert lost.value.exit_code == ExitCode.UNREACHABLE
    assert f"ktrdr operations watch {ID}" in lost.value.hint


def test_a_first_look_that_is_not_answered_ends_the_watch_at_once(
    scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("GetOperation", UNAVAILABLE)
    with pytest.raises(RpcFailedError):
        watch(scripted, fake_time)
    assert fake_time.pauses == []


def test_an_operation_known_to_exist_is_waited_for_from_the_first_look(
    scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("GetOperation", UNAVAILABLE, look(operation(COMPLETED)))
    assert len(watch(scripted, fake_time, known=True)) == 2


def test_an_operation_the_backend_has_lost_has_an_unknown_outcome(
    scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script(
        "GetOperation", look(operation()), Refusal(grpc.StatusCode.NOT_FOUND, "none", "NONE")
    )
    with pytest.raises(CommandError, match=r"no longer knows .* unknown") as lost:
        watch(scripted, fake_time)
    assert lost.value.exit_code == ExitCode.FAILED

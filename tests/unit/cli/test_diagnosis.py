import pytest

from backend.cli.diagnosis import diagnose
from backend.cli.observation import Observation, Trouble
from backend.cli.signs import Diagnosis
from ktrdr.operations.v1 import operation_pb2 as op
from tests.unit.cli.open_operations import (
    HOST,
    LOADING,
    NOW,
    ago,
    each,
    last_known,
    lasting,
    seen,
    steps,
    working,
)
from tests.unit.cli.samples import CANCELLING, ID, PENDING, RUNNING

STALE_AFTER = 1_800.0
CANCEL = f"ktrdr operations cancel {ID}"


def judged(observation: Observation, stale_after: float = STALE_AFTER) -> Diagnosis:
    return diagnose(observation, stale_after)


def states(diagnosis: Diagnosis) -> tuple[str, str, str]:
    host, worker, progress = (sign.state for sign in diagnosis.signs)
    return host, worker, progress


def cancelling(asked: float, silence: float = 0.5) -> op.Operation:
    operation = working(CANCELLING, silence=silence)
    operation.cancel_time.FromDatetime(ago(asked))
    return operation


# ------------------------------------------------------------------------------- well


def test_a_training_at_its_pace_is_well_and_needs_nothing() -> None:
    diagnosis = judged(seen(working(host=HOST), *each(4, last=2)))
    assert ("ANSWERS", "ALIVE", "STEADY") == states(diagnosis)
    assert "ok 4.0s/epoch" == diagnosis.progress.text
    assert not diagnosis.wrong
    assert diagnosis.remedy is None
    assert HOST == diagnosis.host.facts["address"]


def test_a_queued_operation_has_no_worker_and_says_since_when_it_waits() -> None:
    diagnosis = judged(seen(working(PENDING, started=5_340)))
    assert ("ANSWERS", "QUEUED", "QUEUED") == states(diagnosis)
    assert ("queued 1h30m", "-") == (diagnosis.worker.text, diagnosis.progress.text)
    assert not diagnosis.wrong
    assert diagnosis.remedy is not None
    assert "wait" == diagnosis.remedy.action


def test_a_queue_may_be_as_long_as_it_likes() -> None:
    assert not judged(seen(working(PENDING, started=900_000))).wrong


def test_work_that_has_just_begun_has_no_pace_yet() -> None:
    diagnosis = judged(seen(working(silence=None, started=5)))
    assert ("ANSWERS", "ALIVE", "STARTING") == states(diagnosis)
    assert not diagnosis.wrong


def test_before_the_first_step_the_percentage_stands_for_the_pace() -> None:
    operation = working(phase="preprocessing")
    operation.progress.percentage = 3
    assert "ok 3 %" == judged(seen(operation)).progress.text


def test_a_load_that_waits_for_ib_and_says_so_is_well() -> None:
    operation = working(
        type_=LOADING,
        phase="loading",
        message="Loading IBM (1/2): waiting 540 s for IB pacing",
        silence=0.9,
    )
    diagnosis = judged(seen(operation, *each(1, last=400, kind="symbol")))
    assert ("ANSWERS", "ALIVE", "WAITING") == states(diagnosis)
    assert "waits 9m" == diagnosis.progress.text
    assert not diagnosis.wrong


def test_a_training_that_speaks_of_waiting_is_judged_by_its_pace() -> None:
    operation = working(message="waiting 540 s")
    assert "STEADY" == judged(seen(operation)).progress.state


# ------------------------------------------------------------------------- the progress


def test_silence_beyond_the_bound_is_wrong_whatever_the_pace() -> None:
    operation = working(silence=STALE_AFTER)
    diagnosis = judged(seen(operation, *each(3_000, last=STALE_AFTER)))
    assert ("ANSWERS", "ALIVE", "SILENT") == states(diagnosis)
    assert "silent 30m" == diagnosis.progress.text
    assert "Its worker has reported nothing for 30 min 00 s." == diagnosis.progress.why
    assert diagnosis.remedy is not None
    assert CANCEL == diagnosis.remedy.command


def test_the_bound_of_silence_is_the_callers() -> None:
    observation = seen(working(silence=90))
    assert not judged(observation, stale_after=91).wrong
    assert judged(observation, stale_after=90).wrong


def test_work_that_never_reported_is_silent_since_its_start() -> None:
    assert "SILENT" == judged(seen(working(silence=None, started=2_000))).progress.state


def test_a_step_many_times_its_usual_length_is_slow_and_not_dead() -> None:
    diagnosis = judged(seen(working(silence=3), *each(20, last=200)))
    assert ("ANSWERS", "ALIVE", "SLOW") == states(diagnosis)
    assert "slow 3m20s" == diagnosis.progress.text
    assert (
        "It has waited 3 min 20 s for the next epoch, which usually takes 20 s."
        == diagnosis.progress.why
    )
    assert diagnosis.remedy is not None
    assert "wait" == diagnosis.remedy.action


def test_a_step_nine_times_its_usual_length_is_not_slow_yet() -> None:
    assert not judged(seen(working(), *each(20, last=199))).wrong


def test_a_quick_step_may_be_held_up_for_two_minutes() -> None:
    assert not judged(seen(working(silence=119), *each(0.01, last=119))).wrong
    assert judged(seen(working(silence=120), *each(0.01, last=120))).wrong


def test_a_load_may_be_held_up_for_five_minutes() -> None:
    def load(silence: float) -> Observation:
        operation = working(type_=LOADING, phase="loading", message="", silence=silence)
        return seen(operation, *each(2, last=silence, kind="symbol"))

    assert not judged(load(299)).wrong
    assert "SLOW" == judged(load(300)).progress.state


def test_a_long_symbol_after_short_ones_is_well_as_long_as_its_pieces_come() -> None:
    operation = working(type_=LOADING, phase="loading", message="", silence=2)
    assert not judged(seen(operation, *each(0.01, last=900, kind="symbol"))).wrong


def test_before_the_first_step_silence_is_measured_against_all_that_was_worked() -> None:
    def first_epoch(silence: float) -> Observation:
        return seen(working(started=1_200 + silence, silence=silence, items=600))

    assert not judged(first_epoch(299)).wrong
    assert "SLOW" == judged(first_epoch(300)).progress.state


# --------------------------------------------------------------------------- cancelling


def test_a_cancellation_that_is_young_is_waited_for() -> None:
    diagnosis = judged(seen(cancelling(59), *each(1, last=60)))
    assert ("ANSWERS", "ALIVE", "CANCELLING") == states(diagnosis)
    assert not diagnosis.wrong
    assert diagnosis.remedy is not None
    assert "wait" == diagnosis.remedy.action


def test_a_worker_that_does_not_notice_a_cancellation_for_long_is_a_finding() -> None:
    diagnosis = judged(seen(cancelling(60, silence=60), *each(1, last=60)))
    assert "cancelling 1m" == diagnosis.progress.text
    assert (
        "It was told to stop 1 min 00 s ago, and its worker has not noticed."
        == diagnosis.progress.why
    )


def test_a_worker_that_is_slow_by_nature_has_more_time_to_notice() -> None:
    assert not judged(seen(cancelling(599), *each(60, last=10))).wrong
    assert judged(seen(cancelling(600), *each(60, last=10))).wrong


def test_no_worker_has_longer_than_the_bound_of_silence_to_notice() -> None:
    assert judged(seen(cancelling(STALE_AFTER), *each(3_000, last=10))).wrong


# --------------------------------------------------------------------------- the worker


@pytest.mark.parametrize(("host", "place"), [("", "the backend"), (HOST, f"the host at {HOST}")])
def test_a_worker_whose_thread_is_gone_is_a_finding_of_its_own(host: str, place: str) -> None:
    diagnosis = judged(seen(working(alive=False, host=host), *each(4, last=2)))
    assert ("ANSWERS", "GONE", "STOPPED") == states(diagnosis)
    assert ("gone", "stopped 0.5s") == (diagnosis.worker.text, diagnosis.progress.text)
    assert [True] == [sign.wrong for sign in diagnosis.signs if sign.wrong]
    assert diagnosis.remedy is not None
    assert diagnosis.remedy.advice.startswith(f"See the log of {place}.")


@pytest.mark.parametrize("status", [RUNNING, CANCELLING])
@pytest.mark.parametrize("silence", [None, 4_000.0])
def test_what_follows_from_a_worker_that_is_gone_is_no_finding_besides(
    status: op.OperationStatus.ValueType, silence: float | None
) -> None:
    diagnosis = judged(seen(working(status, alive=False, silence=silence)))
    assert ("ANSWERS", "GONE", "STOPPED") == states(diagnosis)
    assert not diagnosis.progress.wrong
    assert diagnosis.remedy == diagnosis.worker.remedy


def test_an_owner_that_does_not_speak_of_its_worker_is_not_taken_to_have_lost_it() -> None:
    operation = working(silence=None, started=5)
    operation.ClearField("liveness")
    diagnosis = judged(seen(operation))
    assert "UNKNOWN" == diagnosis.worker.state
    assert not diagnosis.wrong


def test_a_state_newer_than_this_command_is_judged_like_work() -> None:
    operation = working()
    operation.MergeFromString(b"\x18\x62")
    assert ("ANSWERS", "ALIVE", "STEADY") == states(judged(seen(operation)))


# ----------------------------------------------------------------------------- the host


@pytest.mark.parametrize("status", [PENDING, RUNNING, CANCELLING])
@pytest.mark.parametrize("alive", [True, False])
def test_a_host_that_does_not_answer_says_nothing_about_worker_and_progress(
    status: op.OperationStatus.ValueType, alive: bool
) -> None:
    operation = working(status, alive=alive, silence=9_999, host=HOST)
    message = f"No ktrdr process answers at {HOST}: the connection was refused"
    diagnosis = judged(last_known(operation, "HOST_UNREACHABLE", message, target=HOST))
    assert ("SILENT", "UNKNOWN", "UNKNOWN") == states(diagnosis)
    assert f"{message}." == diagnosis.host.why
    assert diagnosis.remedy is not None
    assert f"Start the host at {HOST}; if it runs, see its log." == diagnosis.remedy.advice


def test_of_several_hosts_on_the_way_the_one_that_was_not_reached_is_named() -> None:
    operation = working(host="10.0.0.1:50051")
    diagnosis = judged(last_known(operation, "HOST_UNREACHABLE", "Nobody.", target=HOST))
    assert HOST == diagnosis.host.facts["address"]


@pytest.mark.parametrize(
    ("reason", "state", "action"),
    [
        ("WRONG_HOST", "WRONG", "bring back"),
        ("PROXY_LOOP", "WRONG", "mend address"),
        ("MALFORMED_ANSWER", "MALFORMED", "mend address"),
        ("HOST_DENIED", "DENIED", "mend token"),
        ("TLS_HANDSHAKE_FAILED", "UNTRUSTED", "mend certificates"),
        ("TOKEN_NOT_SENT", "UNTRUSTED", "use TLS"),
        ("HOST_FAILED", "FAILING", "see log"),
        ("LOG_NOT_CONTINUED", "FAILING", "see log"),
        ("A_REASON_OF_TOMORROW", "FAILING", "see log"),
        ("HOST_OVERLOADED", "BUSY", "ask again"),
        ("TOO_MANY_CALLS", "BUSY", "ask again"),
        ("REFRESH_BUSY", "UNKNOWN", "ask again"),
        ("", "UNKNOWN", "ask again"),
    ],
)
def test_each_reason_has_its_word_and_its_mend(reason: str, state: str, action: str) -> None:
    known = last_known(working(host=HOST), reason, "It said so. More.", target=HOST)
    diagnosis = judged(known)
    assert (state, "UNKNOWN", "UNKNOWN") == states(diagnosis)
    assert "It said so." == diagnosis.host.why
    assert diagnosis.remedy is not None
    assert action == diagnosis.remedy.action
    assert "{" not in diagnosis.remedy.advice


def test_a_backend_too_busy_to_ask_says_nothing_about_the_host() -> None:
    assert "UNKNOWN" == judged(last_known(working(), "TOO_MANY_CALLS", "Full.")).host.state


@pytest.mark.parametrize("reason", ["WORKERS_BUSY", "START_UNKNOWN", "START_UNDER_WAY"])
def test_a_host_that_has_not_taken_an_operation_yet_answers(reason: str) -> None:
    operation = working(PENDING, host=HOST)
    diagnosis = judged(last_known(operation, reason, "Not yet.", target=HOST))
    assert ("ANSWERS", "QUEUED") == states(diagnosis)[:2]
    assert not diagnosis.wrong


# ---------------------------------------------------------------------------- the store


def test_work_that_has_ended_and_cannot_be_recorded_is_no_dead_worker() -> None:
    operation = working(alive=False, silence=9_999, host=HOST)
    message = "The record could not be written: disk full. Make room."
    diagnosis = judged(last_known(operation, "STORE_UNAVAILABLE", message, target=HOST))
    assert ("STORE_AWAY", "ENDED", "ENDED") == states(diagnosis)
    assert diagnosis.remedy is not None
    assert f"the host at {HOST}" in diagnosis.remedy.advice


def test_work_that_goes_on_without_a_store_is_judged_as_it_is() -> None:
    trouble = Trouble("STORE_UNAVAILABLE", "The record could not be written.")
    known = Observation(working(host=HOST), NOW, each(4, last=1), trouble)
    diagnosis = judged(known)
    assert ("STORE_AWAY", "ALIVE", "STEADY") == states(diagnosis)
    assert diagnosis.remedy is not None
    assert "the records of the backend" in diagnosis.remedy.advice


# ------------------------------------------------------------------------------- clocks


def test_a_clock_that_is_behind_makes_no_negative_ages() -> None:
    operation = working(PENDING)
    operation.create_time.FromDatetime(ago(-3_600))
    assert "queued 0.00s" == judged(seen(operation)).worker.text


def test_the_facts_that_a_judgement_rests_on_go_with_it() -> None:
    operation = working(silence=3)
    operation.freshness.age.CopyFrom(lasting(0.01))
    facts = judged(seen(operation, *each(20, last=200))).progress.facts
    assert {
        "message": "Epoch 5/10, batch 3/36",
        "silentSeconds": 3.0,
        "lagSeconds": 200.0,
        "usualSeconds": 20.0,
        "usualOf": "epoch",
    } == facts


def test_a_single_step_without_a_word_of_its_length_shows_no_pace() -> None:
    assert "STEADY" == judged(seen(working(), *steps(1_000))).progress.state

"""Each invariant holds for what may happen, and says what is wrong with what may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.invariants import (
    GROWTH,
    NOTHING_TOLD,
    AtHost,
    Footprint,
    contradicts_itself,
    ended_wrongly,
    grew,
    not_to_be_logged,
    read_wrongly,
    recorded_wrongly,
    returned_early,
    told_wrongly,
    too_old,
    unexpected,
    went_back,
)
from tests.soak.looks import Look, ReadLog
from tests.unit.soak.samples import COMPLETED, CUT_OFF, LOAD, RUNNING, TRAINING, entries

CANCELLED = replace(COMPLETED, status="CANCELLED", outcome="CANCELLED")


# ------------------------------------------------------------------------ while it goes on


@pytest.mark.parametrize(
    ("look", "wrong"),
    [
        (RUNNING, []),
        (replace(RUNNING, status="CANCELLING", percentage=41.0, metrics_count=2), []),
        (COMPLETED, []),
        (CUT_OFF, []),
        (replace(RUNNING, status="PENDING"), ["PENDING after RUNNING"]),
        (replace(RUNNING, percentage=39.9), ["39.900 % after 40.000 %"]),
        (replace(RUNNING, metrics_count=0), ["0 metrics after 1"]),
        (replace(CUT_OFF, percentage=-1.0), ["-1.000 % after 40.000 %"]),
    ],
)
def test_an_open_operation_goes_forward(look: Look, wrong: list[str]) -> None:
    assert wrong == went_back(NOTHING_TOLD.raised(RUNNING), look)


def test_a_floor_keeps_the_most_of_each() -> None:
    floor = NOTHING_TOLD.raised(RUNNING)
    floor = floor.raised(replace(RUNNING, status="PENDING", percentage=90.0, metrics_count=0))

    assert ("RUNNING", 90.0, 1, None) == (
        floor.status,
        floor.percentage,
        floor.metrics_count,
        floor.ended,
    )


@pytest.mark.parametrize("part", ["status", "outcome", "digest", "end_time", "metrics_count"])
def test_what_has_ended_never_changes(part: str) -> None:
    floor = NOTHING_TOLD.raised(COMPLETED).raised(RUNNING)
    other: object = 17 if isinstance(getattr(COMPLETED, part), int) else "other"

    (wrong,) = went_back(floor, replace(COMPLETED, **{part: other}))  # type: ignore[arg-type]

    assert [] == went_back(floor, COMPLETED)
    assert f"{part} was {getattr(COMPLETED, part)} when it had ended and is {other}" == wrong


def test_an_answer_is_within_the_bound_of_its_caller() -> None:
    assert [] == too_old(RUNNING, None)
    assert [] == too_old(RUNNING, 0.5)
    assert [] == too_old(replace(RUNNING, source="BRIDGE"), 0.1), "as young as can be had"
    assert ["RUNNING of REMOTE, 0.500 s old, where 0.400 s were accepted"] == too_old(RUNNING, 0.4)


@pytest.mark.parametrize(
    ("look", "wrong"),
    [
        (RUNNING, None),
        (COMPLETED, None),
        (CUT_OFF, None),
        (replace(RUNNING, refresh_error="HOST_UNREACHABLE"), None),
        (replace(COMPLETED, outcome=""), "COMPLETED without a result"),
        (replace(CUT_OFF, end_time=0), "FAILED without"),
        (replace(RUNNING, end_time=9), "RUNNING with"),
        (replace(CUT_OFF, status="COMPLETED"), "COMPLETED with an error"),
        (replace(RUNNING, percentage=100.1), "100.1 %"),
        (replace(RUNNING, refresh_error="HOST_FAILED"), "because of HOST_FAILED"),
    ],
)
def test_an_answer_does_not_contradict_itself(look: Look, wrong: str | None) -> None:
    found = contradicts_itself(look)

    assert (wrong is None) == (not found)
    assert wrong is None or wrong in found[0]


@pytest.mark.parametrize(
    ("look", "waited", "retry_after", "early"),
    [
        (COMPLETED, 0.1, 0.0, False),
        (RUNNING, 5.0, 0.0, False),
        (RUNNING, 0.1, 0.5, False),
        (RUNNING, 1.0, 0.0, True),
    ],
)
def test_a_wait_lasts_until_the_end_or_its_time_or_says_why_not(
    look: Look, *, waited: float, retry_after: float, early: bool
) -> None:
    assert early == bool(returned_early(look, waited=waited, timeout=5.0, retry_after=retry_after))


@pytest.mark.parametrize(
    ("code", "reason", "was_down", "expected"),
    [
        ("UNAVAILABLE", "HOST_UNREACHABLE", False, True),
        ("NOT_FOUND", "OPERATION_NOT_FOUND", False, True),
        ("UNAVAILABLE", "", True, True),
        ("CANCELLED", "", True, True),
        ("UNAVAILABLE", "", False, False),
        ("INTERNAL", "INTERNAL", True, False),
        ("UNKNOWN", "", True, False),
        ("DEADLINE_EXCEEDED", "", True, False),
        ("UNAVAILABLE", "WRONG_HOST", True, False),
    ],
)
def test_calls_fail_as_documented_and_without_a_word_only_if_nobody_was_there(
    code: str, reason: str, *, was_down: bool, expected: bool
) -> None:
    assert expected == (not unexpected(code, reason, was_down=was_down))


# ------------------------------------------------------------------------------ afterwards


@pytest.mark.parametrize(
    ("look", "cancelled", "wrong"),
    [
        (COMPLETED, True, []),
        (CANCELLED, True, []),
        (CUT_OFF, False, []),
        (replace(CUT_OFF, outcome="OPERATION_LOST", start_time=0), False, []),
        (RUNNING, True, ["is still RUNNING"]),
        (CANCELLED, False, ["was cancelled, which nobody asked for"]),
        (replace(CUT_OFF, outcome="WORKER_RAISED"), False, ["failed with WORKER_RAISED"]),
        (
            replace(CUT_OFF, outcome="OPERATION_LOST"),
            False,
            ["failed with OPERATION_LOST, though it had begun"],
        ),
        (
            replace(COMPLETED, metrics_count=2),
            False,
            ["completed with 2 metrics instead of 3"],
        ),
    ],
)
def test_a_training_ends_completed_or_cancelled_or_cut_off(
    look: Look, *, cancelled: bool, wrong: list[str]
) -> None:
    assert wrong == ended_wrongly(TRAINING, look, cancelled=cancelled)


def test_a_load_has_a_metric_for_each_symbol_and_a_result_of_its_own() -> None:
    loaded = replace(COMPLETED, outcome="ktrdr.marketdata.v1.DataLoadResult", metrics_count=2)

    assert [] == ended_wrongly(LOAD, loaded, cancelled=False)
    assert ["its result is a ktrdr.training.v1.TrainingResult"] == ended_wrongly(
        LOAD, replace(COMPLETED, metrics_count=2), cancelled=False
    )


def test_a_record_has_every_metric_once() -> None:
    assert [] == recorded_wrongly(COMPLETED, entries(1, 2, 3))
    assert ["2 metrics recorded, 3 told"] == recorded_wrongly(COMPLETED, entries(1, 2))
    assert ["the steps recorded are [1, 2, 2] ..."] == recorded_wrongly(COMPLETED, entries(1, 2, 2))
    assert ["the steps recorded are [1, 3, 4] ..."] == recorded_wrongly(COMPLETED, entries(1, 3, 4))


def test_a_reader_has_what_is_recorded_and_more_only_from_an_earlier_life() -> None:
    log = ReadLog(2, entries(1, 2), life=0)

    assert [] == read_wrongly(log, entries(1, 2, 3), life=0)
    assert ["a reader has read up to 2, the record up to 1"] == read_wrongly(
        log, entries(1), life=0
    )
    assert [] == read_wrongly(log, entries(1), life=1)
    log.take([], 1, life=1)
    assert [] == read_wrongly(log, entries(1), life=1), "it was told of the fall"
    assert ["a reader's entries [1] are not those recorded"] == read_wrongly(
        log, entries(1, 3), life=1
    )


def at_host(look: Look, *steps: int, host: str = "trainer-1") -> AtHost:
    return AtHost(host, look, entries(*steps))


def test_a_host_tells_the_same_and_may_have_lost_the_end_of_its_log() -> None:
    log = entries(1, 2, 3)

    assert [] == told_wrongly(COMPLETED, log, [at_host(COMPLETED, 1, 2, 3)])
    assert [] == told_wrongly(CUT_OFF, log, [at_host(CUT_OFF, 1)])
    assert ["has 1 metrics, at trainer-1 there are 2"] == told_wrongly(
        CUT_OFF, entries(1), [at_host(CUT_OFF, 1, 2)]
    )
    assert ["its log is not that of trainer-1"] == told_wrongly(
        CUT_OFF, entries(1, 2), [at_host(CUT_OFF, 1, 3)]
    )
    (wrong,) = told_wrongly(CUT_OFF, log, [at_host(COMPLETED, 1, 2, 3)])
    assert "is FAILED PROCESS_RESTARTED, at trainer-1 it is COMPLETED" in wrong


def test_nothing_runs_twice_and_nothing_ends_that_no_host_knows() -> None:
    twice = [at_host(COMPLETED, 1), at_host(COMPLETED, 1, host="trainer-2")]
    never = replace(CUT_OFF, outcome="NEVER_STARTED")

    assert ["ran on trainer-1 and trainer-2"] == told_wrongly(COMPLETED, entries(1), twice)
    assert [] == told_wrongly(never, [], [])
    assert ["is FAILED PROCESS_RESTARTED, and no host knows it"] == told_wrongly(CUT_OFF, [], [])


def test_a_log_has_no_stack_trace_and_no_error_but_that_somebody_is_away() -> None:
    away = "2026-01-01 00:00:00,000 ERROR   ktrdr.operations: host:50052 does not answer: Gone."
    wrong = ["2026-01-01 00:00:00,000 ERROR   ktrdr.rpc: Incident a", "Traceback (most recent"]

    assert wrong == not_to_be_logged([away, "2026-01-01 INFO    ktrdr.process: Stopped", *wrong])


def test_a_process_may_grow_by_the_tolerance_and_no_more() -> None:
    warm = Footprint(memory=100, threads=10, files=20)
    most = Footprint(
        100 + GROWTH["memory"], 10 + GROWTH["threads"], 20 + GROWTH["files"], libraries=9
    )

    assert [] == grew(warm, most)
    assert ["threads grew from 10 to 100"] == grew(warm, replace(most, threads=100))

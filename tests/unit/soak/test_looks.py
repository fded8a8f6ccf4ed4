from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.any_pb2 import Any

from ktrdr.operations.v1 import operation_pb2 as pb
from ktrdr.training.v1 import training_pb2
from tests.soak.looks import ReadLog, entries_of, look_of
from tests.unit.soak.samples import entries

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def completed() -> pb.Operation:
    result = Any()
    result.Pack(training_pb2.TrainingResult(model_name="m"))
    operation = pb.Operation(
        operation_id="op",
        type=pb.OPERATION_TYPE_TRAINING,
        status=pb.OPERATION_STATUS_COMPLETED,
        progress=pb.Progress(percentage=100.0),
        metrics_count=3,
        metadata={"host_operation_id": "host_training_op"},
        result=result,
        freshness=pb.Freshness(source=pb.FRESHNESS_SOURCE_RECORD),
    )
    operation.create_time.FromDatetime(WHEN)
    operation.end_time.FromDatetime(WHEN)
    return operation


def test_a_look_is_what_an_answer_says() -> None:
    look = look_of(completed())

    assert ("op", "COMPLETED", 100.0, 3, "RECORD", "host_training_op") == (
        look.operation_id,
        look.status,
        look.percentage,
        look.metrics_count,
        look.source,
        look.host_operation_id,
    )
    assert (True, "ktrdr.training.v1.TrainingResult") == (look.ended, look.outcome)
    assert look.create_time == look.end_time > 0


def test_another_result_is_another_look() -> None:
    other = completed()
    other.result.Pack(training_pb2.TrainingResult(model_name="another"))

    assert look_of(completed()) == look_of(completed())
    assert look_of(completed()).digest != look_of(other).digest


def test_what_is_open_has_no_outcome_and_perhaps_no_percentage() -> None:
    look = look_of(pb.Operation(operation_id="op", status=pb.OPERATION_STATUS_RUNNING))

    assert (False, "", "", -1.0, 0) == (
        look.ended,
        look.outcome,
        look.digest,
        look.percentage,
        look.end_time,
    )


def test_entries_tell_equal_metrics_from_others_whatever_the_order_of_their_maps() -> None:
    one = pb.Metric(step=1, values={"a": 1.0, "b": float("nan")})
    same = pb.Metric(step=1, values={"b": float("nan"), "a": 1.0})
    other = pb.Metric(step=1, values={"a": 2.0})

    first, second, third = entries_of([one, same, other])

    assert first == second != third


# ------------------------------------------------------------------------ reading a log


def test_a_log_is_read_page_by_page() -> None:
    log = ReadLog()

    assert [] == log.take(entries(1, 2), 2, life=0, has_more=True)
    assert [] == log.take([], 2, life=0)
    assert [] == log.take(entries(3), 3, life=0)

    assert (3, entries(1, 2, 3)) == (log.cursor, log.entries)


def test_a_gap_is_noticed() -> None:
    log = ReadLog()
    log.take(entries(1), 1, life=0)

    assert ["entry 1 is step 3"] == log.take(entries(3), 2, life=0)


def test_a_repeat_is_noticed() -> None:
    log = ReadLog()
    log.take(entries(1, 2), 2, life=0)

    assert ["entry 2 is step 2"] == log.take(entries(2), 3, life=0)


def test_a_cursor_that_does_not_go_with_its_page_is_noticed() -> None:
    assert ["1 metrics from 0 on, but the next cursor is 2"] == ReadLog().take(
        entries(1), 2, life=0
    )


def test_an_empty_page_that_promises_more_is_noticed() -> None:
    assert ["an empty page at 0 that says there is more"] == ReadLog().take(
        [], 0, life=0, has_more=True
    )


def test_a_cursor_falls_only_in_another_life() -> None:
    log = ReadLog()
    log.take(entries(1, 2), 2, life=0)

    assert ["the cursor fell from 2 to 1"] == log.take([], 1, life=0)
    log.cursor = 2
    assert [] == log.take([], 1, life=1)
    assert [] == log.take(entries(2, 3), 3, life=1)
    assert entries(1, 2, 3) == log.entries


def test_what_is_read_again_is_what_it_was() -> None:
    log = ReadLog()
    log.take(entries(1, 2), 2, life=0)
    log.take([], 0, life=1)
    (changed,) = entries_of([pb.Metric(step=1)])

    assert ["entry 0 is not what it was"] == log.take([changed], 1, life=1)

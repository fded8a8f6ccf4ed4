from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isnan, nan
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.operations.v1 import operation_pb2 as pb
from ktrdr.operations.v1 import operations_service_pb2 as service_pb
from shared.operations import conversion
from shared.operations.answer_conversion import (
    metrics_page_from,
    operation_view_from,
    reading_from,
    remote_page_from,
    view_from,
)
from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Hop,
    Liveness,
    Metric,
    OperationError,
    OperationStatus,
    Progress,
)
from shared.operations.views import OperationView
from shared.rpc.errors import Code, MalformedAnswerError
from tests.support.sources import state_of
from tests.unit.operations.drawn import COUNTS, FRESHNESSES, INT64, METRICS, NAMES, VIEWS
from tests.unit.operations.fakes import DAY, RESULT, metric, operation

S = OperationStatus
PATH = (Hop("host", FreshnessSource.BRIDGE, cached=False, age=0.25),)
FRESHNESS = Freshness(0.25, FreshnessSource.BRIDGE, cached=False, path=PATH)
ERROR = OperationError(Code.INTERNAL, "WORKER_RAISED", "It raised.")
NEVER = Timestamp(seconds=10**15)
BEFORE = Duration(seconds=-1)
TOO_LONG = Duration(seconds=10**15)

# ------------------------------------------------------------------ any answer


def to_the_microsecond(view: OperationView) -> OperationView:
    """Round every length of time."""
    freshness = view.freshness._replace(
        age=round(view.freshness.age, 6),
        path=tuple(hop._replace(age=round(hop.age, 6)) for hop in view.freshness.path),
    )
    liveness, progress = view.liveness, view.operation.progress
    if liveness is not None and liveness.last_report_age is not None:
        liveness = liveness._replace(last_report_age=round(liveness.last_report_age, 6))
    if progress is not None and progress.estimated_remaining is not None:
        progress = progress._replace(estimated_remaining=round(progress.estimated_remaining, 6))
    operation_ = replace(view.operation, progress=progress)
    return OperationView(operation_, freshness, liveness, view.metrics)


def answer_of(view: OperationView, cursor: int = 0) -> service_pb.GetOperationResponse:
    """What a process that knows this answers one who asks from this cursor on."""
    return service_pb.GetOperationResponse(
        operation=conversion.view_to_proto(view),
        metrics=[conversion.metric_to_proto(each) for each in view.metrics],
        new_cursor=min(cursor + len(view.metrics), view.operation.metrics_count),
    )


@given(VIEWS)
def test_what_another_process_knows_arrives_as_it_is_there(view: OperationView) -> None:
    count = max(len(view.metrics), view.operation.metrics_count)
    view = view._replace(operation=replace(view.operation, metrics_count=count))
    cursor = count - len(view.metrics)
    sent = answer_of(view, cursor).SerializeToString()

    received = service_pb.GetOperationResponse.FromString(sent)
    got = view_from(received, view.operation.operation_id, cursor)

    assert to_the_microsecond(view) == to_the_microsecond(got)


@given(VIEWS)
def test_news_of_an_operation_is_what_a_snapshot_of_it_says(view: OperationView) -> None:
    count = max(len(view.metrics), view.operation.metrics_count)
    view = view._replace(operation=replace(view.operation, metrics_count=count))
    cursor = count - len(view.metrics)
    answer = answer_of(view, cursor)

    got = reading_from(answer, view.operation.operation_id, cursor)

    known = view_from(answer, view.operation.operation_id, cursor)
    assert (cursor, known.metrics, count) == (got.cursor, got.metrics, got.metrics_count)
    assert known.operation.progress == got.progress
    assert state_of(known.operation) == got.operation
    assert (known.freshness.age, known.freshness.path) == (got.age, got.path)
    assert known.liveness == got.liveness
    assert (known.liveness.last_report_age if known.liveness else None) == got.last_report_age


@given(FRESHNESSES, st.lists(METRICS, max_size=3), COUNTS.map(lambda n: n // 2), st.booleans())
def test_a_page_of_metrics_arrives_as_it_was_sent(
    freshness: Freshness, metrics: list[Metric], cursor: int, more: bool
) -> None:
    page = metrics_page_from(
        service_pb.GetMetricsResponse(
            metrics=[conversion.metric_to_proto(each) for each in metrics],
            new_cursor=cursor + len(metrics),
            has_more=more and bool(metrics),
            freshness=conversion.freshness_to_proto(freshness),
        ),
        cursor,
    )

    assert (tuple(metrics), cursor + len(metrics)) == (page.metrics, page.new_cursor)
    assert page.has_more is (more and bool(metrics))
    assert freshness.refresh_error == page.freshness.refresh_error


@given(st.lists(VIEWS, max_size=2))
def test_a_listing_arrives_as_it_was_sent(views: list[OperationView]) -> None:
    page = remote_page_from(
        service_pb.ListOperationsResponse(
            operations=[conversion.view_to_proto(view) for view in views],
            next_page_token="next",  # noqa: S106  # a place in a listing
            total_count=7,
            active_count=3,
            unreachable=["far:1"],
            instance="host",
            incarnation="first",
        )
    )

    assert [view.operation.operation_id for view in views] == [
        view.operation.operation_id for view in page.views
    ]
    assert ("next", 7, 3, ("far:1",)) == (
        page.next_page_token,
        page.total_count,
        page.active_count,
        page.unreachable,
    )
    assert ("host", "first") == (page.instance, page.incarnation)


def test_a_figure_that_is_no_number_arrives() -> None:
    view = OperationView(
        operation(metrics_count=1), FRESHNESS, None, (Metric(DAY, "epoch", 1, {"loss": nan}),)
    )

    got = view_from(answer_of(view), "op", 0)

    assert isnan(got.metrics[0].values["loss"])


def test_a_code_of_a_later_version_is_unknown() -> None:
    message = failed()
    message.error.code = 4711

    got = operation_view_from(message).operation.error

    assert got is not None
    assert (Code.UNKNOWN, "WORKER_RAISED", "It raised.") == (got.code, got.reason, got.message)


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = b"\xf8\x7f\x01"  # field 2047, a varint
    sent = running().SerializeToString() + later

    assert operation_view_from(running()) == operation_view_from(pb.Operation.FromString(sent))


def test_a_cursor_past_the_end_is_answered_without_metrics() -> None:
    view = OperationView(operation(metrics_count=2), FRESHNESS, None)

    assert () == view_from(answer_of(view, 5), "op", 5).metrics


# ---------------------------------------------------------- impossible answers


def running() -> pb.Operation:
    """An answer without a fault."""
    progress = Progress(10.0, estimated_remaining=60.0, update_time=DAY)
    view = OperationView(
        operation(status=S.RUNNING, progress=progress, start_time=DAY, cancel_time=DAY),
        FRESHNESS,
        Liveness(worker_alive=True, last_report_age=0.5),
    )
    return conversion.view_to_proto(view)


def completed() -> pb.Operation:
    ended = operation(status=S.COMPLETED, end_time=DAY, result=RESULT)
    return conversion.view_to_proto(OperationView(ended, FRESHNESS, None))


def failed() -> pb.Operation:
    ended = operation(status=S.FAILED, end_time=DAY, error=ERROR)
    return conversion.view_to_proto(OperationView(ended, FRESHNESS, None))


def put(path: str, value: Any) -> Callable[[Any], None]:
    """Put a value where the path leads; a message is copied, None is no value."""

    def change(message: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            message = message[int(step)] if step.isdecimal() else getattr(message, step)
        if value is None:
            message.ClearField(last)
        elif isinstance(value, AnyMessage | Duration | Timestamp | pb.OperationError):
            getattr(message, last).CopyFrom(value)
        else:
            setattr(message, last, value)

    return change


@pytest.mark.parametrize(
    ("make", "field", "change"),
    [
        (running, "operation_id", put("operation_id", "another")),
        (running, "freshness", put("freshness", None)),
        (running, "freshness.path", put("freshness.path", None)),
        (running, "freshness.age", put("freshness.age", BEFORE)),
        (running, "freshness.age", put("freshness.age", TOO_LONG)),
        (running, "freshness.source", put("freshness.source", 0)),
        (running, "freshness.source", put("freshness.source", 99)),
        (running, "freshness.path.source", put("freshness.path.0.source", 0)),
        (running, "freshness.path.age", put("freshness.path.0.age", BEFORE)),
        (running, "freshness.path.age", put("freshness.path.0.age", TOO_LONG)),
        (running, "status", put("status", 0)),
        (running, "status", put("status", 99)),
        (running, "type", put("type", 0)),
        (running, "type", put("type", 99)),
        (running, "outcome", put("result", AnyMessage())),
        (running, "outcome", put("error", pb.OperationError())),
        (completed, "outcome", put("result", None)),
        (completed, "outcome", put("error", pb.OperationError())),
        (failed, "outcome", put("error", None)),
        (failed, "outcome", put("result", AnyMessage())),
        (running, "metrics_count", put("metrics_count", -1)),
        (running, "end_time", put("end_time", Timestamp())),
        (completed, "end_time", put("end_time", None)),
        (completed, "end_time", put("end_time", NEVER)),
        (running, "create_time", put("create_time", NEVER)),
        (running, "create_time", put("create_time", Timestamp(seconds=-(10**12)))),
        (running, "update_time", put("update_time", NEVER)),
        (running, "start_time", put("start_time", NEVER)),
        (running, "cancel_time", put("cancel_time", NEVER)),
        (running, "progress.update_time", put("progress.update_time", NEVER)),
        (running, "progress.percentage", put("progress.percentage", -0.1)),
        (running, "progress.percentage", put("progress.percentage", 100.1)),
        (running, "progress.percentage", put("progress.percentage", nan)),
        (running, "progress.estimated_remaining", put("progress.estimated_remaining", BEFORE)),
        (running, "progress.estimated_remaining", put("progress.estimated_remaining", TOO_LONG)),
        (running, "liveness.last_report_age", put("liveness.last_report_age", BEFORE)),
        (running, "liveness.last_report_age", put("liveness.last_report_age", TOO_LONG)),
    ],
)
def test_an_operation_that_cannot_be_is_refused_by_the_name_of_its_field(
    make: Callable[[], pb.Operation], field: str, change: Callable[[Any], None]
) -> None:
    message = make()
    assert "op" == operation_view_from(message, "op").operation.operation_id
    change(message)

    with pytest.raises(MalformedAnswerError) as raised:
        operation_view_from(message, "op")

    assert raised.value.message.startswith(f"{field} ")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("operation_id", put("operation_id", "another")),
        ("status", put("status", 0)),
        ("outcome", put("error.reason", "X")),
        ("end_time", lambda message: message.end_time.CopyFrom(message.create_time)),
        ("start_time", put("start_time", NEVER)),
        ("metrics_count", put("metrics_count", -1)),
        ("progress.percentage", put("progress.percentage", 101.0)),
        ("freshness", lambda message: message.ClearField("freshness")),
        ("freshness.path", lambda message: message.freshness.ClearField("path")),
        ("freshness.age", put("freshness.age", BEFORE)),
        ("liveness.last_report_age", put("liveness.last_report_age", TOO_LONG)),
    ],
)
def test_news_that_cannot_be_is_refused_by_the_name_of_its_field(
    field: str, change: Callable[[Any], None]
) -> None:
    answer = service_pb.GetOperationResponse(operation=running())
    change(answer.operation)

    with pytest.raises(MalformedAnswerError) as raised:
        reading_from(answer, "op", 0)

    assert raised.value.message.startswith(f"{field} ")


def test_metrics_past_the_count_are_refused() -> None:
    view = OperationView(operation(metrics_count=1), FRESHNESS, None, (metric(1), metric(2)))

    with pytest.raises(MalformedAnswerError, match=r"^metrics go past metrics_count"):
        view_from(answer_of(view), "op", 0)


@pytest.mark.parametrize("new_cursor", [0, 1, 3])
def test_metrics_that_do_not_lead_to_the_new_cursor_are_refused(new_cursor: int) -> None:
    view = OperationView(operation(metrics_count=3), FRESHNESS, None, (metric(1), metric(2)))
    answer = answer_of(view)
    answer.new_cursor = new_cursor

    with pytest.raises(MalformedAnswerError, match=r"^new_cursor skips metrics"):
        view_from(answer, "op", 0)


def test_a_metric_without_a_possible_time_is_refused() -> None:
    view = OperationView(operation(metrics_count=1), FRESHNESS, None, (metric(1),))
    answer = answer_of(view)
    answer.metrics[0].time.CopyFrom(NEVER)

    with pytest.raises(MalformedAnswerError, match=r"^metrics\.time is no time"):
        view_from(answer, "op", 0)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("new_cursor", put("new_cursor", 9)),
        ("new_cursor", put("new_cursor", 5)),
        ("has_more", put("metrics", None)),
        ("freshness.path", put("freshness", None)),
    ],
)
def test_a_page_of_metrics_that_cannot_be_is_refused(
    field: str, change: Callable[[Any], None]
) -> None:
    answer = service_pb.GetMetricsResponse(
        metrics=[conversion.metric_to_proto(metric(1))],
        new_cursor=6,
        has_more=True,
        freshness=conversion.freshness_to_proto(FRESHNESS),
    )
    assert 6 == metrics_page_from(answer, 5).new_cursor
    change(answer)

    with pytest.raises(MalformedAnswerError) as raised:
        metrics_page_from(answer, 5 + (field == "has_more"))

    assert raised.value.message.startswith(f"{field} ")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("instance", put("instance", None)),
        ("instance", put("incarnation", None)),
        ("total_count", put("total_count", -1)),
        ("active_count", put("active_count", -1)),
        ("metrics_count", put("operations.0.metrics_count", -1)),
    ],
)
def test_a_listing_that_cannot_be_is_refused(field: str, change: Callable[[Any], None]) -> None:
    answer = service_pb.ListOperationsResponse(
        operations=[running()], instance="host", incarnation="first", active_count=1
    )
    assert 1 == remote_page_from(answer).active_count
    change(answer)

    with pytest.raises(MalformedAnswerError) as raised:
        remote_page_from(answer)

    assert raised.value.message.startswith(f"{field} ")


NUMBERS = st.integers(-(2**31), 2**31 - 1) | st.integers(0, 6)
STAMPS = st.none() | st.builds(Timestamp, seconds=INT64, nanos=NUMBERS) | st.just(Timestamp())
LENGTHS = st.none() | st.builds(Duration, seconds=INT64, nanos=NUMBERS)
ANY_HOP = st.builds(pb.Hop, source=NUMBERS, age=LENGTHS)
ANY_OPERATION = st.builds(
    pb.Operation,
    operation_id=NAMES,
    type=NUMBERS,
    status=NUMBERS,
    progress=st.none()
    | st.builds(
        pb.Progress,
        percentage=st.none() | st.floats(),
        current_step=INT64,
        update_time=STAMPS,
        estimated_remaining=LENGTHS,
    ),
    metrics_count=INT64,
    create_time=STAMPS,
    update_time=STAMPS,
    start_time=STAMPS,
    end_time=STAMPS,
    cancel_time=STAMPS,
    error=st.none() | st.builds(pb.OperationError, code=NUMBERS, message=NAMES),
    freshness=st.builds(
        pb.Freshness, source=NUMBERS, age=LENGTHS, path=st.lists(ANY_HOP, max_size=2)
    ),
    liveness=st.none() | st.builds(pb.Liveness, last_report_age=LENGTHS),
)


def read(message: pb.Operation) -> tuple[pb.Operation, str]:
    """The answer as it would be told to others; or nothing, and why it is refused."""
    try:
        return conversion.view_to_proto(operation_view_from(message)), ""
    except MalformedAnswerError as error:
        return pb.Operation(), error.message


@given(ANY_OPERATION)
def test_whatever_is_answered_is_refused_or_can_be_told_to_others(message: pb.Operation) -> None:
    told, refusal = read(message)

    assert message.status == told.status or refusal.endswith(".")


@given(
    st.sampled_from([running, completed, failed]),
    st.sampled_from(["freshness.age", "freshness.path.0.age", "liveness.last_report_age"]),
    st.builds(Duration, seconds=INT64, nanos=NUMBERS),
)
def test_whatever_age_is_answered_is_refused_or_can_be_told_to_others(
    make: Callable[[], pb.Operation], path: str, age: Duration
) -> None:
    message = make()
    put(path, age)(message)

    told, refusal = read(message)

    field = path.replace(".0", "")
    assert message.status == told.status or f"{field} is no length of time." == refusal


@given(
    st.sampled_from(["create_time", "update_time", "start_time", "cancel_time"]),
    st.builds(Timestamp, seconds=INT64, nanos=NUMBERS),
)
def test_whatever_time_is_answered_is_refused_or_can_be_told_to_others(
    field: str, time: Timestamp
) -> None:
    message = running()
    put(field, time)(message)

    told, refusal = read(message)

    assert message.status == told.status or f"{field} is no time." == refusal

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf.duration_pb2 import Duration

from ktrdr.operations.v1 import operation_pb2 as pb
from shared.operations import conversion
from shared.operations.conversion import OperationMessages, view_to_proto
from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Liveness,
    Metric,
    Operation,
    Progress,
)
from shared.operations.views import OperationView
from tests.unit.operations.fakes import DAY, operation


def view(of: Operation, age: float) -> OperationView:
    freshness = Freshness(age, FreshnessSource.BRIDGE, cached=True)
    return OperationView(of, freshness, Liveness(worker_alive=True, last_report_age=age))


def filled(messages: OperationMessages, of: OperationView) -> pb.Operation:
    message = pb.Operation()
    messages.fill(message, of)
    return message


def test_a_remembered_message_is_the_one_that_would_be_built() -> None:
    messages, kept = OperationMessages(), operation()
    for age in (0.0, 0.5, 1.0):
        assert view_to_proto(view(kept, age)) == filled(messages, view(kept, age))


def test_an_operation_that_has_changed_is_converted_anew() -> None:
    messages, kept = OperationMessages(), operation()
    filled(messages, view(kept, 0.0))
    changed = replace(kept, metrics_count=7)

    assert 7 == filled(messages, view(changed, 0.0)).metrics_count


def test_an_answer_does_not_change_what_is_remembered() -> None:
    messages, kept = OperationMessages(), operation()
    for _ in range(3):
        filled(messages, view(kept, 0.0)).metadata["mine"] = "changed"

    assert "mine" not in filled(messages, view(kept, 0.0)).metadata


def test_only_the_last_ones_that_were_asked_for_twice_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[str] = []
    convert = conversion.set_operation

    def counted(message: pb.Operation, of: Operation) -> None:
        built.append(of.operation_id)
        convert(message, of)

    monkeypatch.setattr(conversion, "set_operation", counted)
    messages = OperationMessages(size=2)
    first, second, third = (replace(operation(), operation_id=name) for name in "abc")
    for kept in (first, first, first, second, third, third, third, first):
        filled(messages, view(kept, 0.0))

    assert ["a", "a", "b", "c", "c", "a"] == built


def test_half_a_character_in_what_a_worker_reports_makes_no_operation_unreadable() -> None:
    said = Progress(
        message="reading caf\udce4.csv",
        phase="\udce4",
        context={"file": "caf\udce4.csv", "sy\udce4mbol": "IBM"},
    )

    progress = view_to_proto(view(operation(progress=said), 0.0)).progress

    assert ("reading caf?.csv", "?") == (progress.message, progress.phase)
    assert {"file": "caf?.csv", "sy?mbol": "IBM"} == dict(progress.context)


def test_half_a_character_in_a_metric_makes_no_log_unreadable() -> None:
    measured = Metric(DAY, "\udce4", 1, {"lo\udce4ss": 0.5}, {"fi\udce4le": "caf\udce4.csv"})

    metric = conversion.metric_to_proto(measured)

    assert ("?", {"lo?ss": 0.5}, {"fi?le": "caf?.csv"}) == (
        metric.kind,
        dict(metric.values),
        dict(metric.labels),
    )
    assert (DAY, 1) == (conversion.time_of(metric.time), metric.step)


@pytest.mark.parametrize("seconds", [0.0, 0.25, 1.0, 61.5, -0.25, -1.0, -61.5])
def test_a_length_of_time_is_what_protobuf_makes_of_it(seconds: float) -> None:
    expected = Duration()
    expected.FromMicroseconds(round(seconds * 1e6))

    assert expected == conversion.duration(seconds)

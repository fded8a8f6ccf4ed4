from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ktrdr.training.v1 import training_service_pb2 as pb
from shared.rpc.errors import FieldViolation
from shared.rpc.request_fields import check_request_id, made_up_request_id, time_field

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def faults(request_id: str, backends_prefix: str = "") -> list[str]:
    found: list[FieldViolation] = []
    check_request_id(request_id, found, backends_prefix=backends_prefix)
    return [violation.field for violation in found]


@pytest.mark.parametrize("request_id", ["a", "0", "A.b_c-9", "x" * 128])
def test_a_request_id_within_the_rule_is_taken(request_id: str) -> None:
    assert [] == faults(request_id)


@pytest.mark.parametrize("request_id", ["", "-x", "a b", "a\n", "../up", "x" * 129])
def test_any_other_is_named(request_id: str) -> None:
    assert ["request_id"] == faults(request_id)


def test_only_a_host_takes_a_backends_operation_id() -> None:
    longest = "op_x_" + "x" * 128

    assert [] == faults(longest, "op_x_")
    assert ["request_id"] == faults(longest)
    assert [] == faults("op_x_", "op_x_")  # a request_id that only looks like a prefix


def test_a_made_up_request_id_is_one_and_is_no_other() -> None:
    first, second = made_up_request_id(NOW), made_up_request_id(NOW)

    assert first.startswith("20260102_030405_")
    assert first != second
    assert [] == faults(first)


def test_a_time_is_read_unset_is_none_and_no_time_is_named() -> None:
    message, found = pb.StartTrainingRequest(), list[FieldViolation]()
    message.start_time.FromDatetime(NOW)
    assert (NOW, None) == (
        time_field("start_time", message, found),
        time_field("end_time", message, found),
    )
    assert [] == found

    message.end_time.seconds = 10**15
    assert time_field("end_time", message, found) is None
    assert ["end_time"] == [violation.field for violation in found]

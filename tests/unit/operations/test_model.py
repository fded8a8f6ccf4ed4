from __future__ import annotations

from dataclasses import MISSING, fields, replace
from datetime import timedelta

import pytest

from shared.operations.model import (
    ACTIVE_STATUSES,
    TRANSITIONS,
    Operation,
    OperationError,
    OperationRecord,
    OperationStatus,
    OperationType,
    Owner,
    PackedResult,
    Progress,
)
from shared.rpc.errors import Code, OperationNotFoundError, UnavailableError
from tests.unit.operations.fakes import DAY

S = OperationStatus


def test_every_state_has_its_row_and_reaches_an_end() -> None:
    assert set(S) == set(TRANSITIONS)
    assert all(any(end.terminal for end in TRANSITIONS[state]) for state in ACTIVE_STATUSES)


@pytest.mark.parametrize("status", [S.COMPLETED, S.FAILED, S.CANCELLED])
def test_nothing_follows_a_terminal_state(status: OperationStatus) -> None:
    assert status.terminal
    assert frozenset() == TRANSITIONS[status]


def test_no_state_leads_back() -> None:
    assert S.PENDING not in frozenset[OperationStatus]().union(*TRANSITIONS.values())
    assert S.RUNNING not in TRANSITIONS[S.CANCELLING]


def test_active_states_are_those_that_are_not_terminal() -> None:
    assert {S.PENDING, S.RUNNING, S.CANCELLING} == ACTIVE_STATUSES


def test_an_error_describes_what_was_raised() -> None:
    error = OperationError.of(OperationNotFoundError("op-1", instance="i", incarnation="n"))

    assert (
        Code.NOT_FOUND,
        "OPERATION_NOT_FOUND",
        False,
        {"operation_id": "op-1", "instance": "i", "incarnation": "n"},
    ) == (
        error.code,
        error.reason,
        error.retryable,
        error.metadata,
    )
    assert OperationError.of(UnavailableError("later")).retryable


LATER = DAY + timedelta(minutes=1)
PROGRESS = Progress(40.0, "half", "training", 4, 10, 40, 100, DAY, 60.0, {"symbol": "IBM"})
OPERATION = Operation(
    operation_id="op",
    type=OperationType.TRAINING,
    status=S.CANCELLED,
    create_time=DAY,
    update_time=DAY,
    progress=PROGRESS,
    metadata={"strategy": "small"},
    metrics_count=4,
    start_time=DAY,
    end_time=DAY,
    cancel_time=DAY,
    cancel_reason="enough",
    result=PackedResult("type", b"value"),
    error=OperationError(Code.CANCELLED, "CANCELLED", "Enough."),
)
RECORD = OperationRecord(
    OPERATION, Owner("host", "first", "host:1"), "request", "digest", "starter", True, DAY, "teller"
)


def test_progress_that_is_copied_here_leaves_no_field_at_its_default() -> None:
    """Else the tests below would not see a field that a copy forgets."""
    for name, default in Progress._field_defaults.items():
        assert default != getattr(PROGRESS, name), name


@pytest.mark.parametrize("value", [OPERATION, RECORD])
def test_what_is_copied_here_leaves_no_field_at_its_default(
    value: Operation | OperationRecord,
) -> None:
    """As above."""
    for each in fields(value):
        default = each.default if each.default_factory is MISSING else each.default_factory()
        assert default != getattr(value, each.name), each.name


def test_progress_is_placed_with_all_else_as_it_was() -> None:
    assert PROGRESS._replace(percentage=50.0, update_time=LATER) == PROGRESS.placed(50.0, LATER)


def test_an_operation_takes_a_report_with_all_else_as_it_was() -> None:
    further = PROGRESS._replace(percentage=50.0)
    expected = replace(OPERATION, progress=further, update_time=LATER, metrics_count=5)

    assert expected == OPERATION.reported(further, LATER, 5)


def test_a_record_takes_a_newer_copy_with_all_else_as_it_was() -> None:
    newer = replace(OPERATION, metrics_count=5)

    assert replace(RECORD, operation=newer) == RECORD.of(newer)

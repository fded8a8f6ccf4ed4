from __future__ import annotations

import pytest

from shared.operations.model import (
    ACTIVE_STATUSES,
    TRANSITIONS,
    OperationError,
    OperationStatus,
)
from shared.rpc.errors import Code, OperationNotFoundError, UnavailableError

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

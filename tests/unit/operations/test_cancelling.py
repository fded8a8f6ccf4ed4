from __future__ import annotations

from contextlib import suppress

import pytest

from shared.operations.flights import FULL_TIMEOUT
from shared.operations.model import FreshnessSource, OperationStatus
from shared.operations.source import SourceReading
from shared.rpc.errors import (
    HostDeniedError,
    HostNotConnectedError,
    HostTimeoutError,
    HostUnreachableError,
    RefreshBusyError,
    TokenNotSentError,
    UnavailableError,
    WrongHostError,
)
from tests.unit.operations.fakes import Setup

OPEN, FAILED = OperationStatus.PENDING, OperationStatus.FAILED
"""As an operation is whose owner was never heard, and one that was given up."""


class Owner:
    """A source elsewhere that cannot be told to stop."""

    kind = FreshnessSource.REMOTE
    target = "host:1"

    def __init__(self, error: UnavailableError) -> None:
        self.error = error

    def cancel(self, reason: str, timeout: float) -> None:
        raise self.error

    def read(self, *_: float) -> SourceReading:
        raise self.error


def after_giving_up(error: UnavailableError, within: float = FULL_TIMEOUT) -> OperationStatus:
    """The state of an operation that somebody with so much time wanted to give up."""
    its = Setup()
    its.remote(Owner(error))  # type: ignore[arg-type]  # as much of a source as is asked for
    deadline = its.clock.monotonic() + within
    with suppress(UnavailableError):
        its.service.cancel_operation("op", "gone", give_up=True, deadline=deadline)
    return its.status()


@pytest.mark.parametrize(
    "error",
    [
        HostUnreachableError("nobody is there"),
        HostNotConnectedError("nobody is there"),
        HostTimeoutError("nobody answered"),
        WrongHostError("host:1", expected="a", found="b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_owner_that_is_not_there_is_given_up(error: UnavailableError) -> None:
    assert FAILED is after_giving_up(error)


@pytest.mark.parametrize(
    "error",
    [
        HostDeniedError("the token lacks scope write"),
        TokenNotSentError("host:1"),
        HostUnreachableError("not trusted", reason="TLS_HANDSHAKE_FAILED"),
        HostUnreachableError("it sent no more", reason="LOG_NOT_CONTINUED"),
        UnavailableError("a defect of its own", reason="HOST_FAILED"),
        UnavailableError("too much to do", reason="HOST_OVERLOADED"),
        RefreshBusyError("many wait for it"),
    ],
    ids=lambda error: error.reason,
)
def test_an_owner_that_is_there_and_cannot_be_told_is_not(error: UnavailableError) -> None:
    assert OPEN is after_giving_up(error)


def test_that_a_caller_in_a_hurry_heard_nothing_says_nothing_of_the_owner() -> None:
    silent = HostTimeoutError("nobody answered within 0.1 s")
    assert OPEN is after_giving_up(silent, within=0.1)
    assert FAILED is after_giving_up(silent, within=2.5)

from __future__ import annotations

import pytest

from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import OperationCancelledError
from tests.unit.operations.fakes import in_threads


def test_nothing_is_raised_before_a_request() -> None:
    signal = CancelSignal()
    signal.raise_if_requested()

    assert not signal.requested


def test_a_request_raises_with_its_reason() -> None:
    signal = CancelSignal()
    signal.request("wrong strategy")

    with pytest.raises(OperationCancelledError, match="wrong strategy"):
        signal.raise_if_requested()


def test_a_request_without_a_reason_still_says_something() -> None:
    signal = CancelSignal()
    signal.request()

    with pytest.raises(OperationCancelledError, match="The operation was cancelled"):
        signal.raise_if_requested()


def test_the_first_reason_is_kept() -> None:
    signal = CancelSignal()
    signal.request("first")
    signal.request("second")

    assert "first" == signal.reason


def test_the_reason_does_not_change_once_it_is_seen() -> None:
    for _ in range(50):
        signal = CancelSignal()
        seen: list[str] = []

        def ask(index: int, signal: CancelSignal = signal, seen: list[str] = seen) -> None:
            signal.request(str(index))
            seen.append(signal.reason)

        assert [] == in_threads(3, ask)
        assert {signal.reason} == set(seen)

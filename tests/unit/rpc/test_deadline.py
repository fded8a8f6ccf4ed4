from __future__ import annotations

from math import inf

import grpc
import pytest

from shared.clock import SystemClock
from shared.rpc.deadline import deadline_of
from tests.support.clock import FakeClock
from tests.support.rpc import probe, served


def deadline_seen(timeout: float | None) -> float:
    """The seconds a servicer has left for a call with this timeout."""
    clock = FakeClock()
    seen: list[float] = []

    def look(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(deadline_of(context, clock) - clock.monotonic())
        return b""

    with served([probe({"Look": look})]) as wire:
        wire.channel.unary_unary("/test.v1.ProbeService/Look")(b"", timeout=timeout)
    return seen[0]


def test_a_call_with_a_timeout_ends_on_the_monotonic_clock() -> None:
    assert pytest.approx(20.0, abs=5.0) == deadline_seen(20.0)


def test_a_call_without_a_timeout_never_ends() -> None:
    assert deadline_seen(None) == inf


def test_a_context_that_knows_no_deadline_never_ends() -> None:
    class Unbounded:
        def time_remaining(self) -> None:
            return None

    assert deadline_of(Unbounded(), SystemClock()) == inf  # type: ignore[arg-type]  # all it needs

"""When a call's caller stops listening."""

from __future__ import annotations

from math import inf

import grpc

from shared.clock import Clock


def deadline_of(context: grpc.ServicerContext, clock: Clock) -> float:
    """Return the call's deadline on the monotonic clock; `inf` if it has none.

    Read once per call: gRPC computes the time remaining anew at each question,
    and reports an absurd number of seconds where there is no deadline.
    """
    remaining: float | None = context.time_remaining()
    if remaining is None or remaining > 1e9:
        return inf
    return clock.monotonic() + remaining

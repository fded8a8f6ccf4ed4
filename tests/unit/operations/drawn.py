"""Operations as hypothesis draws them: every field, every outcome that its state can have."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC

from hypothesis import strategies as st

from shared.operations.model import (
    Freshness,
    FreshnessSource,
    Hop,
    Liveness,
    Metric,
    Operation,
    OperationError,
    OperationStatus,
    OperationType,
    PackedResult,
    Progress,
)
from shared.operations.views import OperationView
from shared.rpc.errors import Code

INT64 = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.integers(0, 2**63 - 1)
NAMES = st.text(max_size=8)
FACTS = st.dictionaries(NAMES, NAMES, max_size=3)
TIMES = st.datetimes(timezones=st.just(UTC))
DURATIONS = st.integers(0, 10**15).map(lambda micros: micros / 1e6)
SOURCES = st.sampled_from(FreshnessSource)
ERRORS = st.builds(
    OperationError, st.sampled_from(Code), NAMES, NAMES, retryable=st.booleans(), metadata=FACTS
)
HOPS = st.builds(Hop, NAMES, SOURCES, cached=st.booleans(), age=DURATIONS)
FRESHNESSES = st.builds(
    Freshness,
    DURATIONS,
    SOURCES,
    cached=st.booleans(),
    refresh_error=st.none() | ERRORS,
    path=st.lists(HOPS, min_size=1, max_size=3).map(tuple),
)
LIVENESSES = st.builds(Liveness, st.booleans(), st.none() | DURATIONS)
PROGRESSES = st.builds(
    Progress,
    percentage=st.none() | st.floats(0, 100),
    message=NAMES,
    phase=NAMES,
    current_step=INT64,
    total_steps=st.none() | INT64,
    items_processed=INT64,
    items_total=st.none() | INT64,
    update_time=st.none() | TIMES,
    estimated_remaining=st.none() | DURATIONS,
    context=FACTS,
)
METRICS = st.builds(
    Metric,
    TIMES,
    NAMES,
    INT64,
    st.dictionaries(NAMES, st.floats(allow_nan=False), max_size=3),
    FACTS,
)
OPERATIONS = st.builds(
    Operation,
    operation_id=NAMES,
    type=st.sampled_from(OperationType),
    status=st.sampled_from(OperationStatus),
    create_time=TIMES,
    update_time=TIMES,
    progress=st.none() | PROGRESSES,
    metadata=FACTS,
    metrics_count=COUNTS,
    start_time=st.none() | TIMES,
    end_time=TIMES,
    cancel_time=st.none() | TIMES,
    cancel_reason=NAMES,
    result=st.builds(PackedResult, NAMES, st.binary(max_size=8)),
    error=ERRORS,
)


WITH_ERROR = {OperationStatus.FAILED, OperationStatus.CANCELLED}


def possible(drawn: Operation) -> Operation:
    """Leave an operation only the outcome that its state can have."""
    return replace(
        drawn,
        end_time=drawn.end_time if drawn.status.terminal else None,
        result=drawn.result if drawn.status is OperationStatus.COMPLETED else None,
        error=drawn.error
        if drawn.status in (OperationStatus.FAILED, OperationStatus.CANCELLED)
        else None,
    )


VIEWS = st.builds(
    OperationView,
    OPERATIONS.map(possible),
    FRESHNESSES,
    st.none() | LIVENESSES,
    st.lists(METRICS, max_size=3).map(tuple),
)

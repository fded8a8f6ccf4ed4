from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from shared.operations.model import (
    Metric,
    Operation,
    OperationError,
    OperationRecord,
    OperationStatus,
    OperationType,
    Owner,
    PackedResult,
    Progress,
)
from shared.operations.sql_records import escaped, from_micros, to_json, to_micros, unescaped
from shared.operations.sql_store import SqlOperationStore
from shared.operations.store import OperationFilter
from shared.rpc.errors import Code

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
"""With NUL and halves of surrogate pairs."""
TEXT = ANY_TEXT.map(lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
"""As JSON reads it, which makes one character of two halves; a single half becomes U+FFFD."""
NUMBERS = st.integers(-(2**63), 2**63 - 1)
TIMES = st.datetimes().map(lambda time: time.replace(tzinfo=UTC, fold=0))
FLOATS = st.floats()
WORDS = st.dictionaries(TEXT, TEXT, max_size=3)
METRICS = st.builds(
    Metric, TIMES, ANY_TEXT, NUMBERS, st.dictionaries(TEXT, FLOATS, max_size=4), WORDS
)
PROGRESS = st.builds(
    Progress,
    percentage=st.none() | FLOATS,
    message=TEXT,
    phase=TEXT,
    current_step=NUMBERS,
    total_steps=st.none() | NUMBERS,
    items_processed=NUMBERS,
    items_total=st.none() | NUMBERS,
    update_time=st.none() | TIMES,
    estimated_remaining=st.none() | FLOATS,
    context=WORDS,
)
ERRORS = st.builds(OperationError, st.sampled_from(Code), TEXT, TEXT, st.booleans(), WORDS)
OPERATIONS = st.builds(
    Operation,
    operation_id=ANY_TEXT,
    type=st.sampled_from(OperationType),
    status=st.sampled_from(OperationStatus),
    create_time=TIMES,
    update_time=TIMES,
    progress=st.none() | PROGRESS,
    metadata=WORDS,
    metrics_count=NUMBERS,
    start_time=st.none() | TIMES,
    end_time=st.none() | TIMES,
    cancel_time=st.none() | TIMES,
    cancel_reason=ANY_TEXT,
    result=st.none() | st.builds(PackedResult, ANY_TEXT, st.binary(max_size=20)),
    error=st.none() | ERRORS,
)
RECORDS = st.builds(
    OperationRecord,
    operation=OPERATIONS,
    owner=st.builds(Owner, ANY_TEXT, ANY_TEXT, ANY_TEXT),
    request_id=ANY_TEXT,
    fingerprint=ANY_TEXT,
    starter=ANY_TEXT,
    outcome_read=st.booleans(),
    known_time=st.none() | TIMES,
    told_by=ANY_TEXT,
)
NAUGHTY = "NUL \x00, halves \ud800 and \udfff, \\u0000, \\, ', \", %s, \U0001f600, \r\n"


def exactly(value: object) -> str:
    """Text that tells apart what differs, and is alike for NaN and NaN."""
    return repr(value)


@settings(deadline=None)  # a database takes the time it takes
@given(record=RECORDS)
def test_a_record_comes_back_as_it_was(database: Engine, record: OperationRecord) -> None:
    store = SqlOperationStore(database, uuid4().hex)
    store.create(record)

    assert exactly(record) == exactly(store.get(record.operation.operation_id))


@settings(deadline=None)  # a database takes the time it takes
@given(record=RECORDS, metrics=st.lists(METRICS, max_size=6))
def test_metrics_come_back_as_they_were(
    database: Engine, record: OperationRecord, metrics: list[Metric]
) -> None:
    store = SqlOperationStore(database, uuid4().hex)
    store.save(record, metrics)
    found = store.metrics(record.operation.operation_id, 0, 10)

    assert exactly(metrics) == exactly(list(found))
    assert exactly(record) == exactly(store.page(OperationFilter(), None, 10)[0])


@given(ANY_TEXT)
@example(NAUGHTY)
@example("\ud83d\ude00")
def test_text_is_escaped_so_that_every_database_takes_it(text: str) -> None:
    kept = escaped(text)

    assert "\x00" not in kept
    kept.encode("utf-8")
    assert text == unescaped(kept)


@given(TIMES)
@example(datetime.min.replace(tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
def test_times_are_exact(time: datetime) -> None:
    assert time == from_micros(to_micros(time))


def test_what_is_no_number_of_pythons_is_kept_as_one() -> None:
    class Float32:
        def __float__(self) -> float:
            return 0.5

    assert '{"loss":0.5}' == to_json({"loss": Float32()})

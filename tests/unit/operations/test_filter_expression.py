from __future__ import annotations

from contextlib import suppress
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.operations.filter_expression import MAX_LENGTH, filter_of
from shared.operations.model import ACTIVE_STATUSES, OperationStatus, OperationType
from shared.operations.store import OperationFilter
from shared.rpc.errors import InvalidArgumentError

S, T = OperationStatus, OperationType
ANY: frozenset[OperationStatus] = frozenset()
ENDED = frozenset(S) - ACTIVE_STATUSES
TRAININGS = frozenset({T.TRAINING})


@pytest.mark.parametrize(
    ("expression", "statuses", "types"),
    [
        ("", ANY, frozenset()),
        ("  ", ANY, frozenset()),
        ("done = false", ACTIVE_STATUSES, frozenset()),
        ("done=true", ENDED, frozenset()),
        ("status = RUNNING", {S.RUNNING}, frozenset()),
        ('  status = "RUNNING"  ', {S.RUNNING}, frozenset()),
        ("type = TRAINING", ANY, TRAININGS),
        ("type = DATA_LOADING AND done = false", ACTIVE_STATUSES, {T.DATA_LOADING}),
        ("done = false\tAND\n status = PENDING", {S.PENDING}, frozenset()),
        ("status = FAILED AND done = true AND type = TRAINING", {S.FAILED}, TRAININGS),
        ("status = FAILED AND status = FAILED", {S.FAILED}, frozenset()),
    ],
)
def test_a_filter_names_what_is_wanted(
    expression: str, statuses: set[OperationStatus], types: set[OperationType]
) -> None:
    assert OperationFilter(frozenset(statuses), frozenset(types)) == filter_of(expression)


@pytest.mark.parametrize("status", S)
def test_every_state_can_be_filtered_by(status: OperationStatus) -> None:
    assert OperationFilter(frozenset({status})) == filter_of(f"status = {status.value}")


@pytest.mark.parametrize("type_", T)
def test_every_type_can_be_filtered_by(type_: OperationType) -> None:
    assert OperationFilter(types=frozenset({type_})) == filter_of(f"type = {type_.value}")


@pytest.mark.parametrize(
    "expression",
    [
        "done = true AND done = false",
        "done = true AND status = RUNNING",
        "status = RUNNING AND status = FAILED",
        "type = TRAINING AND type = DATA_LOADING",
    ],
)
def test_what_contradicts_itself_matches_nothing(expression: str) -> None:
    assert filter_of(expression) is None


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("status: RUNNING", "'status: RUNNING' is not understood"),
        ("status != RUNNING", "is not understood"),
        ("done = false OR done = true", "is not understood"),
        ("(done = false)", "is not understood"),
        ("NOT done = false", "is not understood"),
        ("-done = false", "is not understood"),
        ("done", "'done' is not understood"),
        ("RUNNING", "'RUNNING' is not understood"),
        ("done = false and type = TRAINING", "is not understood"),
        ("done = false status = RUNNING", "is not understood"),
        ("done = false AND", "is not understood"),
        ("AND", "'AND' is not understood"),
        ("status = ", "is not understood"),
        ('status = "RUNNING', "is not understood"),
        ('status = ""', "is not understood"),
        ("state = RUNNING", "'state' is no field to filter by"),
        ("metadata.symbols = IBM", "is not understood"),
    ],
)
def test_what_is_not_understood_is_named_with_the_mend(expression: str, named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^filter: ") as raised:
        filter_of(expression)

    assert named in raised.value.message
    assert "write done, status or type = VALUE, joined with AND" in raised.value.message


@pytest.mark.parametrize(
    ("expression", "choices"),
    [
        ("done = yes", "true, false"),
        ("done = True", "true, false"),
        ("status = running", "PENDING, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED"),
        ("type = TRAIN", "TRAINING, DATA_LOADING"),
    ],
)
def test_a_value_that_never_occurs_is_answered_with_those_that_do(
    expression: str, choices: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"it is one of {choices}$"):
        filter_of(expression)


def test_every_bad_part_is_named_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        filter_of("state = RUNNING AND done = false AND type = MAGIC")

    assert ["filter", "filter"] == [violation.field for violation in raised.value.violations]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidArgumentError):
        filter_of(text)


def test_a_long_one_is_refused_and_costs_nothing() -> None:
    began = monotonic()
    for text in (" " * 10**6 + "x", "done = false AND " * 10**5):
        with pytest.raises(InvalidArgumentError, match=f"at most {MAX_LENGTH} characters"):
            filter_of(text)
    for text in (" " * (MAX_LENGTH - 1) + "x", "x" + " " * (MAX_LENGTH - 2) + "x"):
        with pytest.raises(InvalidArgumentError, match="is not understood"):
            filter_of(text)
    assert monotonic() - began < 1.0

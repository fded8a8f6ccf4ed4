from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.rpc.errors import InvalidArgumentError
from shared.rpc.paging import decode_time, decode_token, encode_token, fitting, page_size

FILTERS = ([1, 2], "x", True)
POSITIONS = st.lists(st.text(), min_size=1, max_size=4)


def token_of(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def digest() -> str:
    token = encode_token(["x"], FILTERS)
    digest: str = json.loads(base64.urlsafe_b64decode(token))[0]
    return digest


def test_no_page_size_means_the_default() -> None:
    assert page_size(0, default=50, largest=200) == 50


def test_a_page_size_is_taken_up_to_the_largest() -> None:
    assert page_size(7, default=50, largest=200) == 7
    assert page_size(201, default=50, largest=200) == 200


def test_a_negative_page_size_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^page_size: .*got -1; 0 means 50"):
        page_size(-1, default=50, largest=200)


@settings(deadline=None)
@given(POSITIONS)
def test_a_token_brings_back_its_position(position: list[str]) -> None:
    token = encode_token(position, FILTERS)
    assert decode_token(token, FILTERS, parts=len(position)) == position


@settings(deadline=None)
@given(POSITIONS)
def test_a_token_is_plain_ascii(position: list[str]) -> None:
    assert encode_token(position, FILTERS).isascii()


def test_no_token_means_the_first_page() -> None:
    assert decode_token("", FILTERS, parts=2) is None


@settings(deadline=None)
@given(POSITIONS, st.tuples(st.lists(st.integers()), st.text(), st.booleans()))
def test_a_token_of_other_filters_is_refused(
    position: list[str], others: tuple[list[int], str, bool]
) -> None:
    if others == FILTERS:
        return
    token = encode_token(position, others)
    with pytest.raises(InvalidArgumentError, match="belongs to a listing with other filters"):
        decode_token(token, FILTERS, parts=len(position))


@settings(deadline=None)
@given(st.text(min_size=1) | st.binary(min_size=1).map(lambda b: base64.b64encode(b).decode()))
def test_garbage_is_not_a_token(garbage: str) -> None:
    with pytest.raises(InvalidArgumentError, match="page_token: is not a next_page_token"):
        decode_token(garbage, FILTERS, parts=2)


@pytest.mark.parametrize(
    "document",
    [
        5,
        None,
        [],
        ["only one"],
        {"digest": 1, "position": 2},
        [None, None],
        [1, ["a", "b"], 3],
        ["digest", ["a"]],
        ["digest", ["a", 1]],
        ["digest", "ab"],
        ["digest", {"a": 1, "b": 2}],
    ],
    ids=repr,
)
def test_a_forged_token_is_not_a_token(document: object) -> None:
    if isinstance(document, list) and document[:1] == ["digest"]:
        document = [digest(), *document[1:]]
    with pytest.raises(InvalidArgumentError, match="page_token: is not a next_page_token"):
        decode_token(token_of(document), FILTERS, parts=2)


def test_a_token_of_many_brackets_is_refused_like_any_garbage() -> None:
    brackets = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    with pytest.raises(InvalidArgumentError, match="page_token: is not a next_page_token"):
        decode_token(brackets, FILTERS, parts=2)


def test_a_token_that_was_touched_is_refused() -> None:
    token = encode_token(["2026-01-01", "op_1"], FILTERS)
    with pytest.raises(InvalidArgumentError):
        decode_token(token[4:], FILTERS, parts=2)


TIMES = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))]))


@settings(deadline=None)
@given(TIMES)
def test_a_time_in_a_position_comes_back(at: datetime) -> None:
    assert decode_time(at.isoformat()) == at


@pytest.mark.parametrize("part", ["", "soon", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01Z"])
def test_a_forged_time_is_refused_like_any_garbage(part: str) -> None:
    with pytest.raises(InvalidArgumentError, match="page_token: is not a next_page_token"):
        decode_time(part)


@pytest.mark.parametrize(("size", "rows"), [(0, 1), (100, 1), (101, 1), (204, 2), (10_000, 5)])
def test_a_page_ends_before_its_bytes_are_too_many_but_has_a_row(size: int, rows: int) -> None:
    messages = [StringValue(value="x" * 100) for _ in range(5)]
    assert messages[:rows] == fitting(messages, size)
    assert [] == fitting([], size)

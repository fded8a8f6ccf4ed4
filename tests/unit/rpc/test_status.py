from __future__ import annotations

import tracemalloc
from math import inf, nan

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.rpc.errors import (
    Code,
    FieldViolation,
    InvalidArgumentError,
    KtrdrError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from shared.rpc.status import (
    DETAILS_KEY,
    MAX_DETAILS,
    PUSHBACK_KEY,
    grpc_code,
    shorten,
    status_of,
    trailers_of,
)
from tests.support.rpc import detail, required

ANY_TEXT = st.text(st.characters(), max_size=700)  # surrogates, too: file names hold them
SIZES = st.sampled_from([1, 40, 255, 256, 257, 600])


@pytest.mark.parametrize("code", list(Code))
def test_codes_keep_their_names_in_grpc(code: Code) -> None:
    assert grpc_code(code).name == code.name


def test_a_status_carries_reason_domain_and_metadata() -> None:
    status = status_of(NotFoundError("gone", reason="GONE", metadata={"name": "x"}))
    info = required(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == ("GONE", "ktrdr", {"name": "x"})
    assert (status.code, status.message) == (Code.NOT_FOUND, "gone")
    assert detail(status, error_details_pb2.RetryInfo) is None
    assert detail(status, error_details_pb2.BadRequest) is None


def test_an_error_that_passes_says_when_to_come_back() -> None:
    status = status_of(ResourceExhaustedError("full", retry_after=2.5))
    delay = required(status, error_details_pb2.RetryInfo).retry_delay
    assert delay.ToMilliseconds() == 2500


@pytest.mark.parametrize(
    ("retry_after", "milliseconds"),
    [(inf, 3_600_000), (nan, 0), (-1.0, 0), (1e300, 3_600_000), (0.0015, 1)],
)
def test_an_absurd_time_to_come_back_is_bounded(retry_after: float, milliseconds: int) -> None:
    error = UnavailableError("later", retry_after=retry_after)
    delay = required(status_of(error), error_details_pb2.RetryInfo).retry_delay
    assert delay.ToMilliseconds() == milliseconds
    assert dict(trailers_of(error))[PUSHBACK_KEY] == str(milliseconds)


def test_only_unavailable_pushes_clients_back() -> None:
    assert PUSHBACK_KEY in dict(trailers_of(UnavailableError("later")))
    assert PUSHBACK_KEY not in dict(trailers_of(ResourceExhaustedError("full")))
    assert PUSHBACK_KEY not in dict(trailers_of(NotFoundError("gone")))


def test_every_violation_that_fits_is_named() -> None:
    violations = [FieldViolation(f"f[{index}]", "is bad") for index in range(20)]
    named = required(status_of(InvalidArgumentError(violations)), error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in named.field_violations] == [
        (v.field, v.description) for v in violations
    ]


def test_violations_that_do_not_fit_are_counted() -> None:
    violations = [FieldViolation(f"f[{index}]", "is bad " * 40) for index in range(500)]
    status = status_of(InvalidArgumentError(violations))
    *named, rest = required(status, error_details_pb2.BadRequest).field_violations
    assert len(named) >= 5
    assert f"and {500 - len(named)} more" == rest.description
    assert [v.field for v in named] == [v.field for v in violations[: len(named)]]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(ANY_TEXT, ANY_TEXT, SIZES, SIZES), max_size=30),
    st.integers(min_value=1, max_value=40),
)
def test_details_of_any_violations_fit_the_trailer(
    texts: list[tuple[str, str, int, int]], times: int
) -> None:
    violations = [
        FieldViolation(field * many, description * more) for field, description, many, more in texts
    ] * times
    details = dict(trailers_of(InvalidArgumentError(violations)))[DETAILS_KEY]
    assert len(details) <= MAX_DETAILS


@settings(max_examples=150, deadline=None)
@given(
    ANY_TEXT,
    ANY_TEXT,
    st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=40),
    st.sampled_from([KtrdrError, NotFoundError, UnavailableError]),
)
def test_details_of_any_error_fit_the_trailer(
    message: str, reason: str, metadata: dict[str, str], kind: type[KtrdrError]
) -> None:
    error = kind(message * 10, reason=reason or "X", metadata=metadata)
    assert len(dict(trailers_of(error))[DETAILS_KEY]) <= MAX_DETAILS


def test_what_a_client_can_make_long_is_not_kept() -> None:
    """A refusal may name what was asked for, and that may be as long as a request."""
    tracemalloc.start()
    try:
        for number in range(50):
            name = f"{number} {'x' * 100_000}"
            status_of(NotFoundError("There is none.", metadata={"service": name}))
            status_of(NotFoundError(f"There is no service {name} here."))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def test_short_texts_stay_as_they_are() -> None:
    assert shorten("épée", 100) == "épée"
    assert shorten("x" * 100, 100) == "x" * 100


@settings(deadline=None)
@given(ANY_TEXT, st.integers(min_value=3, max_value=80))
def test_shortened_texts_fit_and_show_the_cut(text: str, size: int) -> None:
    cut = shorten(text, size)
    assert len(cut.encode()) <= size
    assert cut == text.encode("utf-8", "replace").decode() or cut.endswith("…")


def test_the_codes_of_grpc_are_all_known() -> None:
    assert {code.name for code in grpc.StatusCode} - {"OK"} == {code.name for code in Code}

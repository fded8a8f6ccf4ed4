from __future__ import annotations

import inspect

import pytest

from shared.rpc import errors
from shared.rpc.errors import Code, FieldViolation, InvalidArgumentError, KtrdrError

CODES = {
    errors.InvalidArgumentError: Code.INVALID_ARGUMENT,
    errors.NotFoundError: Code.NOT_FOUND,
    errors.OperationNotFoundError: Code.NOT_FOUND,
    errors.ModelNotFoundError: Code.NOT_FOUND,
    errors.AlreadyExistsError: Code.ALREADY_EXISTS,
    errors.RequestIdReusedError: Code.ALREADY_EXISTS,
    errors.FailedPreconditionError: Code.FAILED_PRECONDITION,
    errors.OperationActiveError: Code.FAILED_PRECONDITION,
    errors.OutOfRangeError: Code.OUT_OF_RANGE,
    errors.CursorOutOfRangeError: Code.OUT_OF_RANGE,
    errors.RequestTooLargeError: Code.RESOURCE_EXHAUSTED,
    errors.ResourceExhaustedError: Code.RESOURCE_EXHAUSTED,
    errors.UnavailableError: Code.UNAVAILABLE,
    errors.HostUnreachableError: Code.UNAVAILABLE,
    errors.HostNotConnectedError: Code.UNAVAILABLE,
    errors.TokenNotSentError: Code.UNAVAILABLE,
    errors.HostDeniedError: Code.UNAVAILABLE,
    errors.HostTimeoutError: Code.UNAVAILABLE,
    errors.WrongHostError: Code.UNAVAILABLE,
    errors.MalformedAnswerError: Code.UNAVAILABLE,
    errors.StartUnknownError: Code.UNAVAILABLE,
    errors.RefreshBusyError: Code.UNAVAILABLE,
    errors.StoreUnavailableError: Code.UNAVAILABLE,
    errors.BridgeUnreadableError: Code.UNAVAILABLE,
    errors.WaitLimitError: Code.UNAVAILABLE,
    errors.ProcessStoppingError: Code.UNAVAILABLE,
    errors.UnauthenticatedError: Code.UNAUTHENTICATED,
    errors.PermissionDeniedError: Code.PERMISSION_DENIED,
    errors.CredentialsError: Code.INTERNAL,
    errors.OperationCancelledError: Code.CANCELLED,
}


def every_error() -> list[type[KtrdrError]]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value)
        and issubclass(value, KtrdrError)
        and value is not KtrdrError
        and not value.__name__.startswith("_")
    ]


def test_every_error_has_an_expected_code() -> None:
    assert {error: error.code for error in every_error()} == CODES


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_the_drawing_at_the_top_names_every_error(error: type[KtrdrError]) -> None:
    assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_only_errors_that_pass_are_retryable(error: type[KtrdrError]) -> None:
    passing = error.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
    passing = passing and error is not errors.RequestTooLargeError  # it stays too large
    assert error.retryable is passing


def test_an_invalid_argument_names_every_field() -> None:
    error = InvalidArgumentError([FieldViolation("a.b", "is bad"), FieldViolation("c", "is worse")])
    assert str(error) == "a.b: is bad; c: is worse"
    assert (FieldViolation("d", "x"),) == InvalidArgumentError.of("d", "x").violations


def test_a_violation_of_the_whole_request_names_no_field() -> None:
    assert str(InvalidArgumentError([FieldViolation("", "is no message")])) == "is no message"


def test_a_reason_given_to_one_error_stays_with_it() -> None:
    assert errors.ResourceExhaustedError("m", reason="WORKERS_BUSY").reason == "WORKERS_BUSY"
    assert errors.ResourceExhaustedError("m").reason == "RESOURCE_EXHAUSTED"


def test_errors_carry_the_facts_of_the_case() -> None:
    reused = errors.RequestIdReusedError("r1", "op1")
    assert reused.metadata == {"request_id": "r1", "operation_id": "op1"}
    past = errors.CursorOutOfRangeError(7, 5)
    assert past.metadata == {"cursor": "7", "metrics_count": "5"}
    assert "the largest cursor is 5" in past.message


def test_a_not_found_message_says_where_to_look() -> None:
    assert "ktrdr operations list" in errors.OperationNotFoundError("x").message
    assert "ktrdr models list" in errors.ModelNotFoundError("x").message


def test_metadata_is_a_copy() -> None:
    facts = {"a": "1"}
    error = errors.NotFoundError("m", metadata=facts)
    facts["a"] = "2"
    assert error.metadata == {"a": "1"}


def test_an_error_that_is_its_own_causes_context_is_cut_off_from_its_calls() -> None:
    kept, newer = KtrdrError("kept"), KtrdrError("newer")
    kept.__cause__, newer.__context__ = newer, kept
    with pytest.raises(KtrdrError):
        raise kept

    errors.cut_off(kept)

    assert (None, None) == (kept.__traceback__, newer.__traceback__)

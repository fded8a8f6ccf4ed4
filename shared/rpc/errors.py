"""The errors of ktrdr, each naming the gRPC status it becomes.

    KtrdrError
    ├── InvalidArgumentError          INVALID_ARGUMENT     bad fields, each named
    ├── NotFoundError                 NOT_FOUND
    │   ├── OperationNotFoundError
    │   └── ModelNotFoundError
    ├── AlreadyExistsError            ALREADY_EXISTS
    │   └── RequestIdReusedError
    ├── FailedPreconditionError       FAILED_PRECONDITION  the data or the state forbid it
    │   └── OperationActiveError
    ├── OutOfRangeError               OUT_OF_RANGE
    │   └── CursorOutOfRangeError
    ├── RequestTooLargeError          RESOURCE_EXHAUSTED   whenever it comes
    ├── ResourceExhaustedError        RESOURCE_EXHAUSTED   with a time to come back
    ├── UnavailableError              UNAVAILABLE          with a time to come back
    │   ├── HostUnreachableError
    │   │   ├── HostNotConnectedError
    │   │   │   └── TokenNotSentError
    │   │   ├── HostDeniedError
    │   │   └── HostTimeoutError
    │   ├── WrongHostError
    │   ├── MalformedAnswerError
    │   ├── StartUnknownError
    │   ├── RefreshBusyError
    │   ├── StoreUnavailableError
    │   ├── BridgeUnreadableError
    │   ├── WaitLimitError
    │   └── ProcessStoppingError
    ├── UnauthenticatedError          UNAUTHENTICATED      no token, or none that is known
    ├── PermissionDeniedError         PERMISSION_DENIED    the token does not reach that far
    ├── CredentialsError              INTERNAL             stops a start; never answered
    └── OperationCancelledError       CANCELLED            unwinds a cancelled worker

Domain code raises them; one interceptor (`shared.rpc.interceptors`) maps them.
This module does not know gRPC: the codes are the numbers of google.rpc.Code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The numbers of google.rpc.Code that ktrdr answers with."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class KtrdrError(Exception):
    """Root of everything ktrdr raises on purpose; never raised itself."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: str = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        if reason is not None:
            self.reason = reason


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: its path in the request and what to put right."""

    field: str
    """Empty if it is the request itself."""
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class InvalidArgumentError(KtrdrError):
    """The request is wrong whatever the state; every bad field is named."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(str(violation) for violation in self.violations))

    @classmethod
    def of(cls, field: str, description: str) -> InvalidArgumentError:
        """Build the error of one bad field."""
        return cls([FieldViolation(field, description)])


class NotFoundError(KtrdrError):
    """The named thing does not exist."""

    code = Code.NOT_FOUND
    reason = "NOT_FOUND"


class OperationNotFoundError(NotFoundError):
    """No operation has this id."""

    reason = "OPERATION_NOT_FOUND"

    def __init__(self, operation_id: str, *, instance: str = "", incarnation: str = "") -> None:
        """`instance` and `incarnation` say which process does not know it."""
        super().__init__(
            f"There is no operation {operation_id!r} here. "
            "ListOperations (`ktrdr operations list`) shows those there are.",
            metadata={
                "operation_id": operation_id[:200],
                "instance": instance,
                "incarnation": incarnation,
            },
        )


class ModelNotFoundError(NotFoundError):
    """No model has this name, or none of those that the instance asked for has trained."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, name: str, instance: str = "") -> None:
        if instance:
            message = (
                f"There is no model {name!r} of an instance {instance!r} here. Without instance, "
                "GetModel (`ktrdr models show`) says whose there is."
            )
        else:
            message = (
                f"There is no model {name!r} here. ListModels (`ktrdr models list`) "
                "shows those there are."
            )
        super().__init__(message, metadata={"name": name[:200]})


class AlreadyExistsError(KtrdrError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class RequestIdReusedError(AlreadyExistsError):
    """The request_id belongs to a different request."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str, operation_id: str) -> None:
        super().__init__(
            f"request_id {request_id!r} was used for a different request (operation "
            f"{operation_id}). Send the same request again or choose another request_id.",
            metadata={"request_id": request_id, "operation_id": operation_id},
        )


class FailedPreconditionError(KtrdrError):
    """The request is well formed, but the data or the state forbid it."""

    code = Code.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class OperationActiveError(FailedPreconditionError):
    """Only what has ended can be forgotten."""

    reason = "OPERATION_ACTIVE"

    def __init__(self, operation_id: str) -> None:
        super().__init__(
            f"Operation {operation_id} has not ended. Cancel it first, and delete it once it has "
            "stopped.",
            metadata={"operation_id": operation_id},
        )


class OutOfRangeError(KtrdrError):
    """The position asked for does not exist (yet)."""

    code = Code.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class CursorOutOfRangeError(OutOfRangeError):
    """The metrics cursor is past the end of the log."""

    reason = "CURSOR_OUT_OF_RANGE"

    def __init__(self, cursor: int, metrics_count: int) -> None:
        super().__init__(
            f"cursor: {cursor} is past the end; the log holds {metrics_count} metrics, "
            f"so the largest cursor is {metrics_count}.",
            metadata={"cursor": str(cursor), "metrics_count": str(metrics_count)},
        )


class RequestTooLargeError(KtrdrError):
    """The request has more bytes than are taken; trying again does not help."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "REQUEST_TOO_LARGE"


class _RetryLaterError(KtrdrError):
    """An error that says when to come back."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float = 1.0,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after = retry_after
        """Seconds after which trying again makes sense."""


class ResourceExhaustedError(_RetryLaterError):
    """Nothing is free to serve the request; it was not begun."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class UnavailableError(_RetryLaterError):
    """The request could not be served now; trying again may help."""

    code = Code.UNAVAILABLE
    reason = "UNAVAILABLE"


class HostUnreachableError(UnavailableError):
    """The process that owns the work did not answer in time."""

    reason = "HOST_UNREACHABLE"


class HostNotConnectedError(HostUnreachableError):
    """No connection could be made: the process that owns the work has seen nothing."""


class TokenNotSentError(HostNotConnectedError):
    """The way to the other process is open to others, so it was not shown our token."""

    reason = "TOKEN_NOT_SENT"

    def __init__(self, target: str) -> None:
        super().__init__(
            f"The token is not sent to {target} over a connection that others can read. Set "
            "KTRDR_TLS_CA to the authority of its certificate; or KTRDR_INSECURE=1 if you trust "
            "every machine on the way.",
            metadata={"target": target},
        )


class HostDeniedError(HostUnreachableError):
    """The process that owns the work does not let this one in; it has done nothing."""

    reason = "HOST_DENIED"


class HostTimeoutError(HostUnreachableError):
    """The process that owns the work did not answer within the time given."""


class WrongHostError(UnavailableError):
    """Another instance answers where the owner of the work was."""

    reason = "WRONG_HOST"

    def __init__(self, target: str, *, expected: str, found: str) -> None:
        super().__init__(
            f"Not the owner of the operation answers at {target}, but instance "
            f"{found or 'unknown'}. Bring instance {expected} back to this address.",
            metadata={"target": target, "expected": expected, "found": found},
        )


class MalformedAnswerError(UnavailableError):
    """What another process answered makes no sense, or it is no ktrdr process."""

    reason = "MALFORMED_ANSWER"


class StartUnknownError(UnavailableError):
    """Whether the owner was told to start is not known, and this read does not tell it."""

    reason = "START_UNKNOWN"


class RefreshBusyError(UnavailableError):
    """Too many callers already wait for the same owner."""

    reason = "REFRESH_BUSY"


class StoreUnavailableError(UnavailableError):
    """Records could not be read or written."""

    reason = "STORE_UNAVAILABLE"


class BridgeUnreadableError(UnavailableError):
    """What a worker has reported makes no answer, or its bridge raises."""

    reason = "BRIDGE_UNREADABLE"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"What the worker has reported cannot be read ({problem}). It is a defect of the work: "
            "counts are whole numbers of 64 bits, figures plain numbers."
        )


class WaitLimitError(UnavailableError):
    """As many callers wait for the end of operations as may wait at once."""

    reason = "WAIT_LIMIT_REACHED"

    def __init__(self, limit: int, retry_after: float) -> None:
        super().__init__(
            f"{limit} callers wait already, which is the limit here. Come back in "
            f"{retry_after:.1f} s, or look now and then with GetOperation.",
            retry_after=retry_after,
            metadata={"limit": str(limit)},
        )


class ProcessStoppingError(UnavailableError):
    """The process is shutting down and takes on no new work."""

    reason = "PROCESS_STOPPING"


class UnauthenticatedError(KtrdrError):
    """Who calls is not known."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDeniedError(KtrdrError):
    """Who calls is known and may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class CredentialsError(KtrdrError):
    """A certificate, a key or a file of tokens cannot be used; names variable and mend.

    Never holds what is secret in them, nor the name of a file of tokens: it may
    be a token that was taken for one.
    """

    reason = "CREDENTIALS_UNUSABLE"


class OperationCancelledError(KtrdrError):
    """Raised in a worker to leave the work after a cancellation."""

    code = Code.CANCELLED
    reason = "CANCELLED"


def cut_off(error: BaseException) -> None:
    """Let go of the calls an error came through, before it is kept or told.

    Its traceback has their frames, they have their variables, and among those is
    often the error itself: all of it would wait for a garbage collection. An error
    that is raised for several callers would collect the frames of each.
    """
    known: set[int] = set()  # one that is kept and raised again may be its own cause's context
    seen: BaseException | None = error
    while seen is not None and id(seen) not in known:
        known.add(id(seen))
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__

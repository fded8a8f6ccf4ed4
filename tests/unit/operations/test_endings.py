from __future__ import annotations

from shared.operations import endings
from shared.operations.model import OperationStatus, PackedResult
from shared.rpc.errors import Code, FailedPreconditionError
from tests.unit.operations.fakes import DAY, RESULT, Setup

S = OperationStatus
CAUSE = endings.error_of(ValueError("shapes differ"))


def test_a_result_completes() -> None:
    ending = endings.completed(RESULT, DAY)(S.RUNNING, False)

    assert (S.COMPLETED, DAY, RESULT, None) == (
        ending.status,
        ending.end_time,
        ending.result,
        ending.error,
    )


def test_a_result_wins_over_a_cancellation() -> None:
    assert S.COMPLETED is endings.completed(RESULT, DAY)(S.CANCELLING, True).status


def test_an_exception_fails() -> None:
    ending = endings.failed(CAUSE, DAY)(S.RUNNING, False)

    assert (S.FAILED, CAUSE) == (ending.status, ending.error)


def test_an_exception_after_a_cancellation_is_its_cause() -> None:
    ending = endings.failed(CAUSE, DAY)(S.CANCELLING, True)

    assert S.CANCELLED is ending.status
    assert ending.error is not None
    assert Code.CANCELLED is ending.error.code
    assert {"cause_reason": CAUSE.reason, "cause_message": CAUSE.message} == ending.error.metadata


def test_a_stopped_process_fails_its_work_for_another_try() -> None:
    ending = endings.stopped(DAY, process_stopping=True)(S.RUNNING, False)

    assert S.FAILED is ending.status
    assert ending.error is not None
    assert ("PROCESS_STOPPED", True) == (ending.error.reason, ending.error.retryable)


def test_cancelled_work_is_cancelled_also_when_the_process_stops() -> None:
    assert S.CANCELLED is endings.stopped(DAY, process_stopping=True)(S.CANCELLING, True).status
    assert S.CANCELLED is endings.stopped(DAY, process_stopping=False)(S.RUNNING, True).status


def test_a_domain_error_keeps_its_reason() -> None:
    error = endings.error_of(FailedPreconditionError("too few bars", reason="TOO_FEW_BARS"))

    assert (Code.FAILED_PRECONDITION, "TOO_FEW_BARS") == (error.code, error.reason)


def test_an_unforeseen_error_speaks_for_itself() -> None:
    assert (Code.INTERNAL, "WORKER_RAISED") == (CAUSE.code, CAUSE.reason)
    assert "ValueError: shapes differ" in CAUSE.message
    assert {"exception": "ValueError"} == CAUSE.metadata


def test_an_error_that_cannot_say_what_it_is_about_ends_the_work_as_any_other() -> None:
    class Speechless(Exception):  # noqa: N818  # a stranger's
        def __str__(self) -> str:
            raise AttributeError("detail")

    setup = Setup()
    setup.pending()

    def work() -> PackedResult:
        raise Speechless

    setup.service.run_operation("op", work)

    error = setup.service.get_operation("op").operation.error
    assert error is not None
    assert "WORKER_RAISED" == error.reason
    assert "with Speechless: it does not say what it is about (AttributeError)." in error.message

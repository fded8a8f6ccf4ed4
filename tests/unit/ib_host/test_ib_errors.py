from __future__ import annotations

import pytest

from ib_host.ib_errors import (
    IbConnectionError,
    IbError,
    IbTimeoutError,
    Verdict,
    diagnose,
)
from ib_host.simulator.faults import FAILURES

HISTORY = "Historical Market Data Service error message:"


@pytest.mark.parametrize(
    ("name", "verdict", "reason"),
    [
        ("pacing", "retry", "IB_PACING"),
        ("no-data", "skip", "IB_NO_DATA"),
        ("timed-out", "retry", "IB_TIMED_OUT"),
        ("query-cancelled", "retry", "IB_QUERY_CANCELLED"),
        ("hmds-down", "await", "IB_UNAVAILABLE"),
        ("hmds-connecting", "await", "IB_UNAVAILABLE"),
        ("different-ip", "retry", "IB_USED_ELSEWHERE"),
        ("no-permission", "fail", "IB_NOT_PERMITTED"),
        ("invalid-step", "fail", "IB_REQUEST_REFUSED"),
        ("best", "fail", "IB_REQUEST_REFUSED"),
        ("no-head", "skip", "IB_NO_HEAD"),
        ("odd-162", "retry", "IB_ERROR"),
        ("100", "retry", "IB_TOO_MANY_REQUESTS"),
        ("200", "fail", "IB_NO_SUCH_CONTRACT"),
        ("203", "fail", "IB_NOT_PERMITTED"),
        ("321", "fail", "IB_REQUEST_REFUSED"),
        ("322", "retry", "IB_TOO_MANY_REQUESTS"),
        ("326", "retry", "IB_ERROR"),
        ("354", "fail", "IB_NOT_PERMITTED"),
        ("366", "retry", "IB_ERROR"),
        ("420", "retry", "IB_PACING"),
        ("10187", "fail", "IB_NOT_PERMITTED"),
        ("10197", "retry", "IB_USED_ELSEWHERE"),
        ("10299", "fail", "IB_REQUEST_REFUSED"),
        ("10314", "fail", "IB_REQUEST_REFUSED"),
    ],
)
def test_every_failure_of_the_simulator_is_known(name: str, verdict: str, reason: str) -> None:
    refusal = FAILURES[name]
    found = diagnose(IbError(refusal.code, refusal.text))
    assert (verdict, reason) == (found.verdict, found.reason)


def test_no_failure_of_the_simulator_is_left_out() -> None:
    (marks,) = test_every_failure_of_the_simulator_is_known.pytestmark  # type: ignore[attr-defined]
    assert set(FAILURES) == {case[0] for case in marks.args[1]}


@pytest.mark.parametrize(
    ("code", "text", "verdict"),
    [
        (166, "expired", "fail"),
        (386, "not allowed", "fail"),
        (430, "no fundamentals", "fail"),
        (10089, "needs additional subscription", "fail"),
        (10187, "Trading session is connected from a different IP address", "retry"),
        (10339, "Setting end date/time for continuous future is not allowed", "fail"),
        (503, "The TWS is out of date", "fail"),
        (1100, "lost", "await"),
        (504, "Not connected", "await"),
        (2110, "broken", "await"),
        (2105, "HMDS farm", "await"),
        (162, HISTORY + "Pacing Violation", "retry"),
        (162, "El servicio no tiene datos", "retry"),
        (77777, "what nobody knows", "retry"),
    ],
)
def test_codes_are_known_too(code: int, text: str, verdict: str) -> None:
    assert verdict == diagnose(IbError(code, text)).verdict


def test_no_answer_is_asked_for_again_and_a_lost_connection_awaited() -> None:
    assert Verdict.RETRY is diagnose(IbTimeoutError()).verdict
    assert Verdict.AWAIT is diagnose(IbConnectionError()).verdict


def test_all_that_is_asked_again_is_so_a_few_times_and_says_what_to_do() -> None:
    for refusal in FAILURES.values():
        found = diagnose(IbError(refusal.code, refusal.text))
        assert (found.verdict is Verdict.RETRY) == bool(found.waits)
        assert found.told.endswith(".")


def test_a_pacing_violation_is_not_asked_for_again_before_fifteen_seconds() -> None:
    refusal = FAILURES["pacing"]
    assert 15 <= min(diagnose(IbError(refusal.code, refusal.text)).waits)


def test_texts_are_kept_short_and_on_one_line() -> None:
    error = IbError(200, "first\nsecond " + "x" * 1000)
    assert error.text.startswith("first second")
    assert 300 == len(error.text)

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.report import Outcome, report_of, unjudged

PASSED, MISSED = "PASS  fast: 1 ms", "MISS  small: 9 MiB"


@pytest.mark.parametrize(("code", "rows"), [(0, [PASSED]), (1, [PASSED, MISSED])])
def test_a_benchmark_that_judges_and_ends_so_is_taken_at_its_word(
    code: int, rows: list[str]
) -> None:
    assert () == unjudged("bridge", code, rows)


@pytest.mark.parametrize(
    ("code", "rows"), [(0, []), (1, []), (-9, [PASSED]), (1, [PASSED]), (0, [PASSED, MISSED])]
)
def test_a_benchmark_that_fails_silently_is_a_miss(code: int, rows: list[str]) -> None:
    (row,) = unjudged("bridge", code, rows)

    assert row.startswith("MISS  benchmarks.bridge ended with code")


def test_the_report_has_every_row_and_what_was_printed() -> None:
    outcome = Outcome("bridge", f"a table\n\n{PASSED}\n{MISSED}", (PASSED, MISSED), 2.0, 1.5)

    page = report_of([outcome], datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "ttl.svg")

    assert "| bridge | fast | 1 ms | PASS |" in page
    assert "| bridge | small | 9 MiB | **MISS** |" in page
    assert "a table" in page
    assert "2026-01-02, 03:04 UTC" in page


def test_every_benchmark_that_can_be_named_is_there() -> None:
    outcomes = [Outcome(name, "", (), 0.0, 0.0) for name in NAMES]

    page = report_of(outcomes, datetime(2026, 1, 2, tzinfo=UTC), "ttl.svg")

    assert [f"## {name}" for name in NAMES] == [
        line for line in page.splitlines() if line.removeprefix("## ") in NAMES
    ]

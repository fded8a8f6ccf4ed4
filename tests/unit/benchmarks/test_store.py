from __future__ import annotations

from benchmarks.store import there_is_postgres


def test_half_a_measurement_is_a_miss() -> None:
    assert [False] == [target.met for target in there_is_postgres({"SQLite": "sqlite://"})]
    assert [True] == [
        target.met for target in there_is_postgres({"SQLite": "sqlite://", "PostgreSQL": "p"})
    ]

"""Bars of one's own: loads from a folder of CSV files, and trainings on what was loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from ktrdr.marketdata.v1 import market_data_service_pb2 as pb
from shared.operations.conversion import time_of, timestamp
from tests.integration.loads import (
    FROM,
    HEADER,
    QUICK,
    TO,
    assert_same,
    bars,
    load_whole,
    loaded_in,
    write_csv,
)
from tests.integration.refusals import refused
from tests.integration.running import (
    BARS,
    COMPLETED,
    FAILED,
    RunningBackend,
    result_of,
    running_backend,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for CSV files."""
    path = tmp_path / "csv"
    path.mkdir()
    return path


@pytest.fixture
def own(tmp_path: Path, folder: Path) -> Iterator[RunningBackend]:
    """A backend that loads from `folder`."""
    with running_backend(tmp_path / "home", data_source="csv", csv_folder=folder) as running:
        yield running


# --------------------------------------------------------------------------------------- CSV files


def test_bars_of_csv_files_arrive_bit_for_bit(own: RunningBackend, folder: Path) -> None:
    whole = BARS.read("IBM", "1d", FROM, TO)
    write_csv(folder, "MINE", whole)
    assert COMPLETED == load_whole(own, symbols=["MINE"]).status
    assert_same(whole, bars(own, "MINE"), check_exact=True)


@pytest.mark.parametrize(
    "text",
    ["", "what is this?\n", "date,open\n2020-01-01,1\n", HEADER, HEADER + "2020-01-01,1,x,1,1,1\n"],
)
def test_a_bad_file_does_not_lose_the_others(own: RunningBackend, folder: Path, text: str) -> None:
    whole = BARS.read("IBM", "1d", FROM, TO)
    write_csv(folder, "FIRST", whole)
    (folder / "BAD_1d.csv").write_text(text)
    write_csv(folder, "LAST", whole)
    operation = load_whole(own, symbols=["FIRST", "BAD", "LAST"])
    assert COMPLETED == operation.status
    result = loaded_in(operation)
    (failed,) = result.symbols_failed
    assert ("BAD", "CSV_UNREADABLE") == (failed.symbol, failed.reason)
    assert failed.error.startswith("BAD_1d.csv")
    assert str(folder) not in failed.error
    assert 2 == result.symbols_loaded
    assert [len(whole), 0, len(whole)] == [one.rows_loaded for one in result.symbols]
    assert_same(whole, bars(own, "LAST"), check_exact=True)
    metrics = own.get(operation.operation_id, metrics_cursor=0).metrics
    reasons = [metric.labels.get("reason", "") for metric in metrics]
    assert ["", "CSV_UNREADABLE", ""] == reasons
    assert 2 == metrics[-1].values["symbols_completed"]


def test_a_load_of_nothing_but_bad_files_fails_and_names_them(
    own: RunningBackend, folder: Path
) -> None:
    for symbol in ("ONE", "TWO"):
        (folder / f"{symbol}_1d.csv").write_text("nothing\n")
    operation = load_whole(own, symbols=["ONE", "TWO"])
    assert FAILED == operation.status
    assert "NOTHING_LOADED" == operation.error.reason
    assert {"ONE": "CSV_UNREADABLE", "TWO": "CSV_UNREADABLE"} == dict(operation.error.metadata)


def test_rows_that_cannot_be_right_are_left_out_and_counted(
    own: RunningBackend, folder: Path
) -> None:
    rows = [
        "2020-01-02,1,2,1,2,5",
        "2020-01-03,1,0.5,1,2,5",  # high below the rest
        "2020-01-06,1,2,1,2,-5",
        "2020-01-07,1,,1,2,5",
        "2020-01-08,1,2,1,2,5",
        "2020-01-08,1,2,1,1,5",  # a second time
    ]
    (folder / "MIXED_1d.csv").write_text(HEADER + "\n".join(rows) + "\n")
    operation = load_whole(own, symbols=["MIXED"], end_time=None)
    (one,) = loaded_in(operation).symbols
    assert (2, 4, 2) == (one.rows_loaded, one.rows_rejected, one.row_count)
    assert [2, 8] == [time.day for time in bars(own, "MIXED").index]
    (metric,) = own.get(operation.operation_id, metrics_cursor=0).metrics
    assert 4 == metric.values["rejected"]


def test_a_file_that_has_grown_is_loaded_from_where_it_stopped(
    own: RunningBackend, folder: Path
) -> None:
    whole = BARS.read("IBM", "1d", FROM, TO)
    write_csv(folder, "MINE", whole.iloc[:1000])
    load_whole(own, symbols=["MINE"], end_time=None)
    write_csv(folder, "MINE", whole)
    (one,) = loaded_in(load_whole(own, symbols=["MINE"], end_time=None)).symbols
    assert (len(whole) - 1000, len(whole)) == (one.rows_loaded, one.row_count)
    assert_same(whole, bars(own, "MINE"), check_exact=True)


def test_a_full_load_takes_over_what_has_changed(own: RunningBackend, folder: Path) -> None:
    whole = BARS.read("IBM", "1d", FROM, TO)
    write_csv(folder, "MINE", whole)
    load_whole(own, symbols=["MINE"])
    changed = whole.assign(volume=whole["volume"] + 1)
    write_csv(folder, "MINE", changed)
    assert 0 == loaded_in(load_whole(own, symbols=["MINE"])).total_rows_loaded
    assert_same(whole, bars(own, "MINE"), check_exact=True)
    load_whole(own, symbols=["MINE"], mode=pb.LOAD_MODE_FULL)
    assert_same(changed, bars(own, "MINE"), check_exact=True)


# ------------------------------------------------------------------------------- trainings on them


def _trained(running: RunningBackend, symbol: str) -> Any:
    """Train on a symbol, always the same way, and return the result."""
    operation = running.ended(running.train(symbols=[symbol], seed=3, overrides=QUICK))
    assert COMPLETED == operation.status, operation.error.message
    return result_of(operation)


def test_a_training_reads_what_was_loaded(own: RunningBackend, folder: Path) -> None:
    whole = BARS.read("IBM", "1d", FROM, TO)
    write_csv(folder, "MINE", whole)
    direct = _trained(own, "MINE")
    load_whole(own, symbols=["MINE"])
    (folder / "MINE_1d.csv").unlink()
    stored = _trained(own, "MINE")
    assert (direct.train, direct.validation, direct.test) == (
        stored.train,
        stored.validation,
        stored.test,
    )
    assert (direct.start_time, direct.end_time) == (stored.start_time, stored.end_time)


def test_a_training_of_what_was_loaded_in_part_stays_within_it(tmp_path: Path) -> None:
    start, end = datetime(2006, 1, 1, tzinfo=UTC), datetime(2011, 1, 1, tzinfo=UTC)
    with running_backend(tmp_path) as running:
        before = _trained(running, "IBM")
        assert time_of(before.start_time) < start
        load_whole(running, symbols=["IBM"], start_time=timestamp(start), end_time=timestamp(end))
        after = _trained(running, "IBM")
        assert start <= time_of(after.start_time) < time_of(after.end_time) < end


def test_a_symbol_that_is_neither_loaded_nor_there_cannot_be_trained_on(
    own: RunningBackend, folder: Path
) -> None:
    write_csv(folder, "MINE", BARS.read("IBM", "1d", FROM, TO))
    refusal = refused(lambda: own.train(symbols=["OTHER"]))
    assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
    assert "MINE" in refusal.fields["symbols[0]"]


@pytest.mark.parametrize("name", [b"gone", b"gone\xff"])
def test_a_folder_that_has_gone_is_named_to_who_loads_or_trains(
    tmp_path: Path, name: bytes
) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    with running_backend(tmp_path / "home", data_source="csv", csv_folder=folder) as running:
        folder.rmdir()
        load = pb.StartDataLoadRequest(symbols=["MINE"], timeframe="1d")
        for call in (
            lambda: running.market_data.StartDataLoad(load),
            lambda: running.train(symbols=["MINE"]),
        ):
            refusal = refused(call)
            assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
            assert f"{tmp_path}/gone" in refusal.fields["symbols[0]"]
            assert "put it back." in refusal.fields["symbols[0]"]

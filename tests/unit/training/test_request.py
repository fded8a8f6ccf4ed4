from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from shared.marketdata.bars import BarSource
from shared.training.request import TrainingRequest, check_request
from shared.training.strategy import Strategy

Small = Callable[..., Strategy]


def test_the_strategy_fills_in_what_the_request_leaves_open(small: Small) -> None:
    complete = TrainingRequest(timeframes=("1w",)).completed(small())

    assert (("AAA",), ("1w",)) == (complete.symbols, complete.timeframes)


def test_a_good_request_has_no_violations(small: Small, bars: BarSource) -> None:
    assert [] == check_request(small(), TrainingRequest(symbols=("AAA", "BBB")), bars)


def test_bad_fields_of_the_request_are_named(small: Small, bars: BarSource) -> None:
    request = TrainingRequest(
        symbols=("AAA", "XXX", "AAA"),
        timeframes=("5m",),
        start=datetime(2021, 1, 1, tzinfo=UTC),
        end=datetime(2020, 1, 1, tzinfo=UTC),
        seed=-1,
    )

    violations = {v.field: v.description for v in check_request(small(), request, bars)}

    assert {"symbols[1]", "symbols[2]", "timeframes[0]", "end_time", "seed"} == set(violations)
    assert "'AAA' is named twice; leave one out." == violations["symbols[2]"]
    assert "must be after start_time (2021-01-01 00:00)" in violations["end_time"]


@pytest.mark.parametrize(
    ("overrides", "fields"),
    [
        ({"training_data.symbols.symbol": "XXX"}, ["training_data.symbols.symbol"]),
        (
            {"training_data.symbols": "{mode: multi_symbol, list: [AAA, XXX]}"},
            ["training_data.symbols.list[1]"],
        ),
        ({"training_data.timeframes.timeframe": "1h"}, ["training_data.timeframes.timeframe"]),
        (
            {"training_data.timeframes": "{mode: multi_timeframe, list: [1h, 1d]}"},
            ["training_data.timeframes.list[0]"],
        ),
    ],
)
def test_what_the_strategy_names_is_reported_in_the_strategy(
    overrides: dict[str, str], fields: list[str], small: Small, bars: BarSource
) -> None:
    if "training_data.symbols" in overrides:
        overrides = {"training_data.symbols.symbol": "AAA", **overrides}
    violations = check_request(small(overrides), TrainingRequest(), bars)

    assert [f"strategy_yaml.{field}" for field in fields] == [v.field for v in violations]


def test_symbols_and_timeframes_must_come_from_somewhere(small: Small, bars: BarSource) -> None:
    strategy = small({"training_data.symbols.symbol": "AAA", "training_data": "{}"})

    violations = check_request(strategy, TrainingRequest(), bars)

    assert ["symbols", "timeframes"] == [v.field for v in violations]


def test_without_a_strategy_the_requests_own_fields_are_checked(bars: BarSource) -> None:
    request = TrainingRequest(symbols=("AAA", "AAA"), timeframes=("5m",), seed=-1)

    violations = check_request(None, request, bars)

    assert ["timeframes[0]", "symbols[1]", "seed"] == [v.field for v in violations]

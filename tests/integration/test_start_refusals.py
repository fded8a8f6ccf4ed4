"""Bad input to StartTraining: refused before anything exists, every bad field named."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import grpc
import pytest

from ktrdr.operations.v1 import operations_service_pb2 as pb
from tests.integration.refusals import Refusal, refused
from tests.integration.running import SMALL, RunningBackend

NO_YAML = "name: small\nindicators: [\n"
FOREVER = 253_402_300_800
"""Seconds of the first instant of the year 10 000."""


@pytest.fixture
def refuse(running: RunningBackend) -> Iterator[Any]:
    """Start a training that must be refused as invalid; nothing may exist afterwards."""

    def refuse(strategy: str = SMALL, **fields: Any) -> Refusal:
        refusal = refused(lambda: running.train(strategy, **fields))
        assert grpc.StatusCode.INVALID_ARGUMENT == refusal.code
        assert "INVALID_ARGUMENT" == refusal.reason
        assert "ktrdr" == refusal.domain
        assert all(refusal.fields.values())
        return refusal

    yield refuse
    listed = running.operations.ListOperations(pb.ListOperationsRequest())
    assert 0 == listed.total_count
    assert 0 == listed.active_count
    assert not running.pool._threads
    assert 0 == running.pool._reserved
    assert not (running.home / "models").exists()


BAD_STRATEGY = (
    SMALL.replace("name: rsi,", "name: rsj,")
    .replace("  rsi_14:\n    oversold:", "  macd_9:\n    oversold:")
    .replace("[30, 50, 70]", "[70, 50, 30]")
    .replace("epochs: 10", "epochs: 0")
)


def test_every_kind_of_bad_input_is_named_in_one_answer(refuse: Any) -> None:
    refusal = refuse(
        BAD_STRATEGY,
        request_id="not/allowed",
        symbols=["IBM", "IBN"],
        timeframes=["1d", "3d"],
        start_time={"seconds": 1_300_000_000},
        end_time={"seconds": 1_200_000_000},
        seed=-1,
        overrides={"model.architecture.dropout": "2", "model.training.epoch": "3"},
    )
    assert {
        "request_id",
        "symbols[1]",
        "timeframes[1]",
        "end_time",
        "seed",
        "strategy_yaml.indicators[0].name",
        "strategy_yaml.indicators[0].feature_id",
        "strategy_yaml.fuzzy_sets.macd_9",
        "strategy_yaml.fuzzy_sets.macd_9.neutral.parameters",
        "strategy_yaml.model.training.epochs",
        'overrides["model.architecture.dropout"]',
        'overrides["model.training.epoch"]',
    } == set(refusal.fields)
    assert "'rsi'" in refusal.fields["strategy_yaml.indicators[0].name"]
    assert "did you mean 'IBM'?" in refusal.fields["symbols[1]"]
    assert "ascend" in refusal.fields["strategy_yaml.fuzzy_sets.macd_9.neutral.parameters"]


def test_yaml_that_does_not_parse_is_named_by_line_and_column_beside_the_rest(
    refuse: Any,
) -> None:
    refusal = refuse(
        NO_YAML,
        request_id="-x",
        symbols=["NOPE"],
        timeframes=["9d"],
        start_time={"seconds": 1_300_000_000},
        end_time={"seconds": 1_300_000_000},
        seed=-(2**63),
    )
    assert {
        "strategy_yaml",
        "request_id",
        "symbols[0]",
        "timeframes[0]",
        "end_time",
        "seed",
    } == set(refusal.fields)
    assert "line 3, column 1" in refusal.fields["strategy_yaml"]


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ("", "must be a mapping"),
        ("- a\n- b\n", "must be a mapping"),
        ("a: &a [*a]\n", "strategy_yaml"),
        ("a: 1\na: 2\n", "line 2, column 1"),
        ("[" * 100_000, "nested deeper"),
        ("x" * (300 * 1024), "longer than 256 KiB"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1"),
        ("a: \x01", ""),
        ("\ttab: 1", "line 1"),
    ],
)
def test_text_that_is_no_strategy_is_refused(refuse: Any, strategy: str, text: str) -> None:
    refusal = refuse(strategy)
    assert text in refusal.message


@pytest.mark.parametrize("seconds", [-62_135_596_801, FOREVER, 2**63 - 1, -(2**63)])
def test_a_time_outside_the_calendar_is_a_bad_field(refuse: Any, seconds: int) -> None:
    refusal = refuse(start_time={"seconds": seconds}, end_time={"seconds": seconds})
    assert {"start_time", "end_time"} == set(refusal.fields)


@pytest.mark.parametrize("nanos", [-1, 1_000_000_000, 2**31 - 1, -(2**31)])
def test_a_time_with_impossible_nanoseconds_is_a_bad_field(refuse: Any, nanos: int) -> None:
    refusal = refuse(start_time={"seconds": 1_000_000_000, "nanos": nanos})
    assert {"start_time"} == set(refusal.fields)


@pytest.mark.parametrize("request_id", ["-a", "a b", "a/b", "ä", "a\n", "x" * 129, "..", ".a"])
def test_a_request_id_of_another_shape_is_a_bad_field(refuse: Any, request_id: str) -> None:
    assert {"request_id"} == set(refuse(request_id=request_id).fields)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"": "1"}, 'overrides[""]'),
        ({"model..epochs": "1"}, 'overrides["model..epochs"]'),
        ({"indicators.7.period": "1"}, 'overrides["indicators.7.period"]'),
        ({"indicators.0.period": "many"}, 'overrides["indicators.0.period"]'),
        ({"model.training.epochs": "[1"}, 'overrides["model.training.epochs"]'),
        ({"name.first": "x"}, 'overrides["name.first"]'),
        ({f"model.training.x{n}": "1" for n in range(101)}, "overrides"),
    ],
)
def test_a_bad_override_is_named_by_its_path(
    refuse: Any, overrides: dict[str, str], field: str
) -> None:
    assert {field} == set(refuse(overrides=overrides).fields)


def test_what_the_strategy_names_and_nobody_has_is_named_in_the_strategy(refuse: Any) -> None:
    strategy = SMALL.replace("symbol: IBM", "symbol: IBN").replace("timeframe: 1d", "timeframe: 1h")
    assert {
        "strategy_yaml.training_data.symbols.symbol",
        "strategy_yaml.training_data.timeframes.timeframe",
    } == set(refuse(strategy).fields)


def test_a_symbol_named_twice_is_a_bad_field(refuse: Any) -> None:
    assert {"symbols[1]"} == set(refuse(symbols=["IBM", "IBM"]).fields)


def test_thousands_of_bad_names_are_refused_in_a_moment_and_a_small_answer(refuse: Any) -> None:
    began = monotonic()
    refusal = refuse(symbols=[f"X{n}" for n in range(50_000)], timeframes=["q"] * 50_000)
    assert monotonic() - began < 2.0
    assert "at most 100" in refusal.fields["symbols"]
    assert "at most 100" in refusal.fields["timeframes"]
    details = refusal.trailers["grpc-status-details-bin"]
    assert len(details) <= 4096


def test_bad_names_in_any_script_do_not_break_the_answer(refuse: Any) -> None:
    names = ["漢" * 40 + str(n) for n in range(60)]
    for _ in range(20):  # a header that is too large is refused at random
        refusal = refuse(symbols=names, request_id="語" * 200)
    assert any("more" in text for text in refusal.fields.values())


@pytest.mark.parametrize(
    "strategy",
    [
        '"\\ud800": 1\n',
        SMALL + '\n"\\udfff": x\n',
        SMALL.replace("name: small", 'name: "\\ud800"'),
        SMALL.replace("rsi_14:\n", '"\\ud800":\n'),
        SMALL.replace("name: rsi,", 'name: "\\ud800",'),
    ],
)
def test_half_a_character_in_the_strategy_is_a_bad_field(refuse: Any, strategy: str) -> None:
    assert refuse(strategy).fields


def test_an_override_with_half_a_character_is_a_bad_field(refuse: Any) -> None:
    refuse(overrides={"name": '"\\ud800"'})
    refuse(overrides={"model.training": '{"\\ud800": 1}'})
    refuse(overrides={"description": '"\\ud800"'})

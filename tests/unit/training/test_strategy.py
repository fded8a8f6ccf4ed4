import subprocess
import sys
from collections.abc import Mapping

import pytest
import yaml

from shared.rpc.errors import InvalidArgumentError
from shared.training.strategy import (
    ExponentialSchedule,
    MultiTimeframe,
    PlateauSchedule,
    load_strategy,
)


def refused(text: str, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
    """The violations of a strategy that must not load, by field."""
    with pytest.raises(InvalidArgumentError) as caught:
        load_strategy(text, overrides)
    return {v.field: v.description for v in caught.value.violations}


def test_the_small_strategy_loads_as_written(small_yaml: str) -> None:
    strategy = load_strategy(small_yaml)

    assert "small" == strategy.name
    assert {"period": 14.0} == strategy.indicators[0].parameters
    assert (0, 20, 45) == strategy.fuzzy_sets["rsi_14"]["oversold"].parameters
    assert (25, 15) == strategy.model.architecture.hidden_layers
    assert 8 == strategy.supervision.labels.label_lookahead
    assert strategy.training_data.symbols is not None
    assert ("IBM",) == strategy.training_data.symbols.names


def test_the_demo_has_all_three_membership_functions(demo_yaml: str) -> None:
    strategy = load_strategy(demo_yaml)

    assert {"triangular", "trapezoidal", "gaussian"} == {
        fuzzy_set.type for sets in strategy.fuzzy_sets.values() for fuzzy_set in sets.values()
    }


def test_defaults_stand_for_what_is_left_out(small_yaml: str) -> None:
    document = yaml.safe_load(small_yaml)
    document["model"]["training"] = {"epochs": 3}
    del document["training_data"], document["indicators"][0]["period"]

    strategy = load_strategy(yaml.safe_dump(document))

    assert 32 == strategy.model.training.batch_size
    assert {"period": 14.0} == strategy.indicators[0].parameters
    assert strategy.training_data.symbols is None


@pytest.mark.parametrize("name", ["small_yaml", "demo_yaml"])
def test_yaml_written_from_a_strategy_loads_to_an_equal_one(
    name: str, request: pytest.FixtureRequest
) -> None:
    strategy = load_strategy(request.getfixturevalue(name), {"model.training.epochs": "7"})

    again = load_strategy(strategy.to_yaml())

    assert strategy == again
    assert 7 == again.model.training.epochs


def test_free_form_parts_survive_writing(small_yaml: str) -> None:
    text = small_yaml + "decisions: {since: 2020-01-01, weights: [1, x], blob: !!binary //8=}\n"

    strategy = load_strategy(load_strategy(text).to_yaml())

    assert [1, "x"] == strategy.decisions["weights"]


def test_overrides_are_read_as_yaml(small_yaml: str) -> None:
    strategy = load_strategy(
        small_yaml,
        {
            "model.training.learning_rate": "1e-3",
            "model.training.early_stopping": "{patience: 3, monitor: val_accuracy}",
            "indicators.0.period": "7",
            "training_data.timeframes": "{mode: multi_timeframe, list: [1w, 1d]}",
            "version": "2.5",
        },
    )

    assert 0.001 == strategy.model.training.learning_rate
    assert strategy.model.training.early_stopping is not None
    assert 3 == strategy.model.training.early_stopping.patience
    assert {"period": 7.0} == strategy.indicators[0].parameters
    assert isinstance(strategy.training_data.timeframes, MultiTimeframe)
    assert "2.5" == strategy.version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{type: exponential, gamma: 0.9}",
            ExponentialSchedule(type="exponential", gamma=0.9),
        ),
        ("{type: reduce_on_plateau}", PlateauSchedule(type="reduce_on_plateau")),
    ],
)
def test_the_learning_rate_may_follow_a_schedule(
    text: str, expected: object, small_yaml: str
) -> None:
    strategy = load_strategy(small_yaml, {"model.training.lr_scheduler": text})

    assert expected == strategy.model.training.lr_scheduler


@pytest.mark.parametrize(
    "timeframes",
    [
        "{mode: single, timeframe: 1d, base_timeframe: 1d}",
        "{mode: multi_timeframe, list: [1w, 1d], base_timeframe: 1d}",
    ],
)
def test_the_base_timeframe_may_be_named(timeframes: str, small_yaml: str) -> None:
    strategy = load_strategy(small_yaml, {"training_data.timeframes": timeframes})

    assert strategy.training_data.timeframes is not None
    assert "1d" == strategy.training_data.timeframes.base_timeframe


def test_text_that_is_no_yaml_names_line_and_column() -> None:
    assert refused("name: [a\nb: }")["strategy_yaml"].startswith("line 2, column 2: ")


@pytest.mark.parametrize("text", ["", "- 1", "just words"])
def test_text_that_is_no_mapping_is_refused(text: str) -> None:
    assert refused(text)["strategy_yaml"].startswith("must be a mapping, not ")


def test_every_bad_field_is_named_at_once(small_yaml: str) -> None:
    text = (
        small_yaml.replace("name: rsi", "name: rsy")
        .replace("[0, 20, 45]", "[20, 0, 35]")
        .replace("  rsi_14:\n", "  rsi_99:\n")
        .replace("epochs: 10", "epochs: 0, epoks: 3")
        .replace("hidden_layers: [25, 15]", "hidden_layers: [25, 5000]")
        .replace("test: 0.15", "test: 0.25")
    )

    violations = refused(text)

    assert {
        "strategy_yaml.indicators[0].name",
        "strategy_yaml.indicators[0].feature_id",
        "strategy_yaml.fuzzy_sets.rsi_99",
        "strategy_yaml.fuzzy_sets.rsi_99.oversold.parameters",
        "strategy_yaml.model.architecture.hidden_layers[1]",
        "strategy_yaml.model.training.epochs",
        "strategy_yaml.model.training.epoks",
        "strategy_yaml.training.data_split",
    } == set(violations)
    assert violations["strategy_yaml.indicators[0].name"].startswith(
        "unknown indicator 'rsy'; did you mean 'rsi'? Known: adx, aroon"
    )
    assert (
        "fuzzy set for 'rsi_99', but no indicator has that feature_id; there are: rsi_14."
        == violations["strategy_yaml.fuzzy_sets.rsi_99"]
    )
    assert (
        "parameters must ascend: [20, 0, 35]."
        == violations["strategy_yaml.fuzzy_sets.rsi_99.oversold.parameters"]
    )
    assert violations["strategy_yaml.model.training.epoks"].startswith(
        "unknown key 'epoks'; did you mean 'epochs'?"
    )
    assert (
        "train, validation and test must sum to 1, got 1.1."
        == violations["strategy_yaml.training.data_split"]
    )


def test_an_empty_strategy_lacks_its_required_keys() -> None:
    assert {
        f"strategy_yaml.{key}": "required, but not there."
        for key in ("name", "indicators", "fuzzy_sets", "model", "training")
    } == refused("{}")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", "../x", "must be text that matches"),
        ("name", "7", "must be text, not 7."),
        ("scope", "all", "must be one of 'symbol_specific'"),
        ("description", "x" * 5000, "must be at most 4000 characters long"),
        ("model.training.epochs", "true", "must be a number, not true."),
        ("model.training.epochs", "2.5", "must be a whole number, not 2.5."),
        ("model.training.epochs", "many", "must be a whole number, not 'many'."),
        ("model.training.epochs", "100000", "must be at most 10000, not 100000."),
        ("model.training.learning_rate", "0", "must be above 0, not 0."),
        ("model.training.learning_rate", ".nan", "must be at most 10, not nan."),
        ("model.training.learning_rate", "fast", "must be a finite number, not 'fast'."),
        ("model.training.optimizer", "adamw", "must be one of 'adam', 'sgd' or 'rmsprop'"),
        ("model.training.optimiser", "adam", "unknown key 'optimiser'; did you mean 'optimizer'?"),
        ("model.training", "[1]", "must be a mapping, not a list of 1."),
        ("model.training.lr_scheduler", "{type: warm}", "must be one of 'step', 'exponential'"),
        ("model.training.lr_scheduler", "{gamma: 1}", "must be a mapping with a 'type'"),
        ("model.training.lr_scheduler", "{type: step, factor: 1}", "Known: gamma, step_size, type"),
        ("model.features.scale_features", "maybe", "must be true or false, not 'maybe'."),
        ("model.architecture.hidden_layers", "[]", "must be at least 1 long"),
        ("model.architecture.hidden_layers", "25", "must be a list, not 25."),
        ("model.architecture.dropout", "1.0", "must be at most 0.9, not 1.0."),
        ("model.type", "lstm", "must be one of 'mlp', not 'lstm'."),
        ("training.labels.zigzag_threshold", "3", "must be at most 0.5, not 3."),
        ("training.labels.lookahead", "3", "did you mean 'label_lookahead'?"),
        ("training_data.symbols", "{mode: multi_symbol, list: []}", "must be at least 1 long"),
        ("training_data.timeframes.timeframe", "2h", "must be one of 1m, 5m, 15m, 30m, 1h"),
        (
            "training_data.timeframes.base_timeframe",
            "1w",
            "must be the timeframe, '1d'; or leave it out.",
        ),
        (
            "training_data.timeframes",
            "{mode: multi_timeframe, list: [1w, 1d], base_timeframe: 1w}",
            "must be the finest of the list, '1d'; or leave it out.",
        ),
        ("indicators.0.period", "1", "must be a whole number from 2 to 500, not 1."),
        ("indicators.0.period", "2.5", "must be a whole number from 2 to 500, not 2.5."),
        ("indicators.0.period", "x", "must be a whole number from 2 to 500, not 'x'."),
        ("indicators.0.perido", "9", "unknown parameter of rsi 'perido'; did you mean 'period'?"),
        ("indicators.0.source", "hi", "must be one of 'open', 'high', 'low', 'close' or 'volume'"),
        ("indicators.0.feature_id", "9x", "must be text that matches"),
        ("indicators.0", "{name: 3, feature_id: rsi_14}", "name: must be text, not 3."),
        ("indicators.0", "7", "must be a mapping, not 7."),
        ("indicators", "[]", "must be at least 1 long"),
        (
            "indicators.0",
            "{name: atr, feature_id: rsi_14, source: close}",
            "source: atr is computed on the whole bar; leave source out.",
        ),
        (
            "indicators.0",
            "{name: ppo, feature_id: rsi_14, fast_period: 30}",
            "fast_period: fast_period 30 must be below slow_period 26.",
        ),
        ("fuzzy_sets.rsi_14.neutral.parameters", "[1, 2]", "triangular takes three numbers"),
        ("fuzzy_sets.rsi_14.neutral.parameters", "[5, 5, 5]", "must ascend: [5, 5, 5]."),
        ("fuzzy_sets.rsi_14.neutral", "{type: gaussian, parameters: [5, 0]}", "sigma must be ab"),
        ("fuzzy_sets.rsi_14.neutral", "{type: bell, parameters: [5, 0]}", "type: must be one of"),
        ("fuzzy_sets.rsi_14.x_lag1", "{type: gaussian, parameters: [5, 1]}", "is kept for lags"),
        ("fuzzy_sets.rsi_14.x y", "{type: gaussian, parameters: [5, 1]}", "text that matches"),
        ("fuzzy_sets.rsi_14", "{}", "must be at least 1 long"),
        ("fuzzy_sets", "[]", "must be a mapping, not a list of 0."),
    ],
)
def test_a_bad_override_is_named_with_the_mend(
    path: str, value: str, message: str, small_yaml: str
) -> None:
    violations = refused(small_yaml, {path: value})

    assert message in violations[f'overrides["{path}"]']


def test_clashing_names_are_refused(small_yaml: str) -> None:
    document = yaml.safe_load(small_yaml)
    bell = {"type": "gaussian", "parameters": [50, 10]}
    document["indicators"] = [
        {"name": "rsi", "feature_id": "rsi"},
        {"name": "rsi", "feature_id": "rsi_a"},
        {"name": "mfi", "feature_id": "rsi"},
        {"name": "mfi", "feature_id": "price"},
    ]
    document["fuzzy_sets"] = {"rsi": {"a_b": bell}, "rsi_a": {"b": bell}, "price": {"x": bell}}

    violations = refused(yaml.safe_dump(document, sort_keys=False))

    assert {
        "strategy_yaml.indicators[2].feature_id": (
            "'rsi' is already that of indicators[0]; rename one."
        ),
        "strategy_yaml.indicators[3].feature_id": (
            "'price' is kept for the price context; choose another feature_id."
        ),
        "strategy_yaml.fuzzy_sets.rsi_a.b": (
            "gives the same feature name as fuzzy_sets.rsi.a_b; rename one."
        ),
    } == violations


def test_too_many_features_are_refused(small_yaml: str) -> None:
    document = yaml.safe_load(small_yaml)
    document["fuzzy_sets"]["rsi_14"] = {
        f"s{number}": {"type": "gaussian", "parameters": [number, 1]} for number in range(50)
    }
    document["model"]["features"]["lookback_periods"] = 50

    (text,) = refused(yaml.safe_dump(document)).values()

    assert text.startswith("50 fuzzy sets with 50 lags are 2550 features a timeframe; at most 2000")


def test_the_price_context_counts_among_the_features(small_yaml: str) -> None:
    document = yaml.safe_load(small_yaml)
    document["fuzzy_sets"]["rsi_14"] = {
        f"s{number}": {"type": "gaussian", "parameters": [number, 1]} for number in range(39)
    }
    document["model"]["features"] |= {"lookback_periods": 50, "include_price_context": False}
    load_strategy(yaml.safe_dump(document), {"training_data.symbols.symbol": "AAA"})
    document["model"]["features"]["include_price_context"] = True

    (text,) = refused(yaml.safe_dump(document)).values()

    counted = "39 fuzzy sets and 3 columns of the price context with 50 lags are 2142 features"
    assert text.startswith(counted)


def test_an_answer_to_hostile_text_stays_short(small_yaml: str) -> None:
    keys = "".join(f"  k{number}: 1\n" for number in range(500))

    violations = refused(small_yaml.replace("model:\n", f"model:\n{keys}"))

    assert 51 == len(violations)
    assert violations["strategy_yaml"].startswith("and 450 more bad fields")


def test_keys_that_are_no_text_are_refused() -> None:
    assert "strategy_yaml[1]" in refused("1: 2")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("shared.training.strategy", ("torch", "pandas", "numpy", "talib")),
        ("shared.training.model_store", ("torch", "pandas", "talib")),
        ("shared.training.orchestrator", ("torch",)),
    ],
)
def test_importing_a_module_leaves_heavy_libraries_alone(
    module: str, unwanted: tuple[str, ...]
) -> None:
    code = f"import sys, {module}; print([m for m in {unwanted} if m in sys.modules])"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == run.stdout.strip()

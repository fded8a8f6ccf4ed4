"""The strategy: what to train, on what, and how, as read from its YAML.

`load_strategy` is the door: what it returns is complete, consistent and
bounded. Importing this module needs neither torch nor pandas nor TA-Lib.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shared.marketdata.timeframes import TIMEFRAMES, finest
from shared.rpc.errors import FieldViolation, InvalidArgumentError
from shared.rpc.limits import RequestLimits
from shared.training.indicator_catalogue import INDICATORS
from shared.training.strategy_overrides import apply_overrides
from shared.training.strategy_rules import indicator_problems, link_problems
from shared.training.strategy_violations import (
    ROOT,
    Problem,
    brief,
    pydantic_problems,
    violations_of,
)
from shared.training.strategy_yaml import YamlTextError, read_yaml

_MAX_VIOLATIONS = 50
_INFLATION = 32
"""How many times longer a strategy may get when it is written anew, with a line per value."""
_MAX_PROBLEMS = 1000
"""As many are looked for and counted; each takes its time to describe."""


def _known_timeframe(value: str) -> str:
    if value not in TIMEFRAMES:
        raise ValueError(f"must be one of {', '.join(TIMEFRAMES)}, not {brief(value)}")
    return value


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")  # noqa: TRY004 (pydantic maps ValueError only)
    return value


def _as_text(value: object) -> object:
    """A version written 1.0 is a number to YAML."""
    return str(value) if isinstance(value, int | float) else value


Whole = Annotated[int, BeforeValidator(_refuse_bool)]
# YAML reads 1e-3, without a point, as a string; as a number it is accepted here.
Real = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
Point = Annotated[Real, Field(ge=-1e12, le=1e12)]
Text = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
FeatureId = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
TimeframeName = Annotated[str, AfterValidator(_known_timeframe)]
SymbolName = Annotated[str, Field(min_length=1, max_length=32)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# ------------------------------------------------------------------ training data


class SingleSymbol(_Part):
    """One symbol."""

    mode: Literal["single", "single_symbol"]
    symbol: SymbolName

    @property
    def names(self) -> tuple[str, ...]:
        """The symbols."""
        return (self.symbol,)


class MultiSymbol(_Part):
    """Several symbols, trained together."""

    mode: Literal["multi_symbol"]
    names: tuple[SymbolName, ...] = Field(
        min_length=1, max_length=100, validation_alias="list", serialization_alias="list"
    )


class SingleTimeframe(_Part):
    """One timeframe."""

    mode: Literal["single", "single_timeframe"]
    timeframe: TimeframeName
    base_timeframe: TimeframeName | None = None

    @field_validator("base_timeframe")
    @classmethod
    def _same(cls, value: str | None, info: ValidationInfo) -> str | None:
        timeframe = info.data.get("timeframe", value)
        if value not in (None, timeframe):
            raise ValueError(f"must be the timeframe, {timeframe!r}; or leave it out")
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """The timeframes."""
        return (self.timeframe,)


class MultiTimeframe(_Part):
    """Several timeframes; the others are aligned to the finest."""

    mode: Literal["multi_timeframe"]
    names: tuple[TimeframeName, ...] = Field(
        min_length=1, max_length=8, validation_alias="list", serialization_alias="list"
    )
    base_timeframe: TimeframeName | None = None

    @field_validator("base_timeframe")
    @classmethod
    def _finest(cls, value: str | None, info: ValidationInfo) -> str | None:
        names = info.data.get("names")
        if value and names and value != finest(names):
            raise ValueError(f"must be the finest of the list, {finest(names)!r}; or leave it out")
        return value


class TrainingData(_Part):
    """What to train on, unless the request says otherwise."""

    symbols: Annotated[SingleSymbol | MultiSymbol, Field(discriminator="mode")] | None = None
    timeframes: Annotated[SingleTimeframe | MultiTimeframe, Field(discriminator="mode")] | None = (
        None
    )
    history_required: Whole = Field(default=100, ge=1, le=1_000_000)
    """The fewest bars a series of the finest timeframe must have."""


# ------------------------------------------------------- indicators and fuzzy sets


class Indicator(BaseModel):
    """One indicator; its parameters stand beside name and feature_id."""

    # `indicator_problems` checks the other keys against the catalogue.
    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    feature_id: FeatureId
    source: Literal["open", "high", "low", "close", "volume"] = "close"

    @property
    def parameters(self) -> Mapping[str, float]:
        """Every parameter of the indicator, defaults filled in."""
        given = self.model_extra or {}
        return {
            spec.name: float(given.get(spec.name, spec.default))
            for spec in INDICATORS[self.name].parameters
        }


_POINTS = {"triangular": 3, "trapezoidal": 4, "gaussian": 2}
_ORDER = {
    "triangular": "three numbers [left, top, right]",
    "trapezoidal": "four numbers [left, top, top, right]",
    "gaussian": "two numbers [mu, sigma]",
}


class FuzzySet(_Part):
    """One fuzzy set: a membership function with its parameters; see `fuzzy`."""

    type: Literal["triangular", "trapezoidal", "gaussian"]
    parameters: tuple[Point, ...]

    @field_validator("parameters")
    @classmethod
    def _fit_type(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        kind = info.data.get("type")
        if kind is None:
            return value
        if len(value) != _POINTS[kind]:
            raise ValueError(f"{kind} takes {_ORDER[kind]}, got {len(value)}")
        if kind == "gaussian":
            if value[1] <= 0:
                raise ValueError(f"sigma must be above 0, got {value[1]:g}")
        elif list(value) != sorted(value) or value[0] == value[-1]:
            shown = ", ".join(f"{number:g}" for number in value)
            raise ValueError(f"parameters must ascend: [{shown}]")
        return value


# -------------------------------------------------------------------------- model


class Architecture(_Part):
    """The multi-layer perceptron."""

    hidden_layers: tuple[Annotated[Whole, Field(ge=1, le=1024)], ...] = Field(
        min_length=1, max_length=8
    )
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"] = "relu"
    output_activation: Literal["softmax"] = "softmax"
    """Probabilities over BUY, HOLD and SELL; the only one there is."""
    dropout: Real = Field(default=0.0, ge=0.0, le=0.9)
    """Share of each hidden layer's outputs left out while training."""


class FeatureOptions(_Part):
    """What becomes an input beside the memberships of the bar itself."""

    include_price_context: StrictBool = False
    """Adds the bar's return, range and place within its range."""
    lookback_periods: Whole = Field(default=0, ge=0, le=50)
    """How many bars before also give their features."""
    scale_features: StrictBool = True
    """Centre and scale each feature by its mean and deviation on the train part."""


class EarlyStopping(_Part):
    """Stop when a figure has not improved for `patience` epochs."""

    patience: Whole = Field(default=10, ge=1, le=10_000)
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    min_delta: Real = Field(default=0.0, ge=0.0, le=1.0)
    """The smallest change that counts as an improvement."""


class StepSchedule(_Part):
    """Multiply the learning rate by gamma every step_size epochs."""

    type: Literal["step"]
    step_size: Whole = Field(default=10, ge=1, le=10_000)
    gamma: Real = Field(default=0.5, gt=0.0, le=1.0)


class ExponentialSchedule(_Part):
    """Multiply the learning rate by gamma every epoch."""

    type: Literal["exponential"]
    gamma: Real = Field(default=0.95, gt=0.0, le=1.0)


class PlateauSchedule(_Part):
    """Multiply by factor when the validation loss has not improved for patience epochs."""

    type: Literal["reduce_on_plateau"]
    factor: Real = Field(default=0.5, gt=0.0, lt=1.0)
    patience: Whole = Field(default=5, ge=0, le=10_000)


class TrainingOptions(_Part):
    """How the network is trained."""

    learning_rate: Real = Field(default=0.001, gt=0.0, le=10.0)
    batch_size: Whole = Field(default=32, ge=1, le=65_536)
    epochs: Whole = Field(ge=1, le=10_000)
    optimizer: Literal["adam", "sgd", "rmsprop"] = "adam"
    weight_decay: Real = Field(default=0.0001, ge=0.0, le=1.0)
    early_stopping: EarlyStopping | None = None
    gradient_clip: Real | None = Field(default=None, gt=0.0, le=1e6)
    """The largest norm of the gradient; longer ones are shortened to it."""
    lr_scheduler: (
        Annotated[StepSchedule | ExponentialSchedule | PlateauSchedule, Field(discriminator="type")]
        | None
    ) = None


class Model(_Part):
    """The network, its inputs and its training."""

    type: Literal["mlp"]
    architecture: Architecture
    features: FeatureOptions = FeatureOptions()
    training: TrainingOptions


# ----------------------------------------------------------- supervision and split


class Labels(_Part):
    """What the network is taught to say; see `labels`."""

    source: Literal["zigzag"]
    zigzag_threshold: Real = Field(ge=0.0005, le=0.5)
    """The move that makes a leg, as a fraction of the price."""
    label_lookahead: Whole = Field(ge=1, le=500)
    """How many bars after its own a label may depend on."""


class DataSplit(_Part):
    """Fractions of the samples, in order of time."""

    train: Real = Field(default=0.7, gt=0.0, lt=1.0)
    validation: Real = Field(default=0.15, gt=0.0, lt=1.0)
    test: Real = Field(default=0.15, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _whole(self) -> DataSplit:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"train, validation and test must sum to 1, got {total:g}")
        return self


class Supervision(_Part):
    """Where the labels come from and how the samples are split."""

    method: Literal["supervised"] = "supervised"
    labels: Labels
    data_split: DataSplit = DataSplit()


class Strategy(_Part):
    """A whole strategy.

    description, version, hypothesis, scope, deployment and decisions are kept
    with the model; a training does not read them.
    """

    name: Name
    description: Text = ""
    version: Annotated[str, BeforeValidator(_as_text)] = Field(default="", max_length=64)
    hypothesis: Text = ""
    scope: Literal["symbol_specific", "symbol_group_specific", "universal"] = "universal"
    training_data: TrainingData = TrainingData()
    deployment: dict[str, Any] = Field(default_factory=dict)
    indicators: tuple[Indicator, ...] = Field(min_length=1, max_length=50)
    fuzzy_sets: dict[str, Annotated[dict[FeatureId, FuzzySet], Field(min_length=1)]] = Field(
        min_length=1, max_length=50
    )
    model: Model
    decisions: dict[str, Any] = Field(default_factory=dict)
    supervision: Supervision = Field(validation_alias="training", serialization_alias="training")

    def to_yaml(self) -> str:
        """Return the strategy as YAML that loads to an equal one, overrides included."""
        values = self.model_dump(by_alias=True, exclude_unset=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def load_strategy(
    yaml_text: str,
    overrides: Mapping[str, str] | None = None,
    limits: RequestLimits | None = None,
) -> Strategy:
    """Read, complete and check a strategy.

    Overrides map dotted paths ("model.training.epochs", "indicators.0.period")
    to values read as YAML. Raises InvalidArgumentError that names every bad
    field: strategy_yaml with its path, or the override that put it there.
    """
    overrides, limits = overrides or {}, limits or RequestLimits()
    try:
        document = read_yaml(yaml_text, limits.strategy_bytes)
    except YamlTextError as error:
        raise InvalidArgumentError.of(ROOT, str(error)) from error
    if not isinstance(document, dict):
        raise InvalidArgumentError.of(ROOT, f"must be a mapping, not {brief(document)}.")
    document, violations = apply_overrides(document, overrides, limits)
    try:
        strategy = Strategy.model_validate(document)
        problems = list(islice(_rule_problems(document), _MAX_PROBLEMS))
    except ValidationError as error:
        rules = islice(_rule_problems(document), _MAX_PROBLEMS)
        shapes = islice(_shape_problems(error, document), _MAX_PROBLEMS)
        problems = list({**dict(rules), **dict(shapes)}.items())
    violations += violations_of(problems, overrides)
    if violations:
        raise InvalidArgumentError(_shortened(violations))
    if len(yaml_text) + sum(map(len, overrides.values())) > limits.strategy_bytes // _INFLATION:
        _require_readable(strategy.to_yaml(), limits)
    return strategy


def _require_readable(written: str, limits: RequestLimits) -> None:
    """Refuse a strategy that, with its overrides and written anew, nobody would read again.

    So it is passed to hosts and kept with the model.
    """
    try:
        read_yaml(written, limits.strategy_bytes)
    except YamlTextError as error:
        text = f"written in full, with its overrides, it is {error}"
        raise InvalidArgumentError.of(ROOT, text) from error


def _shortened(violations: list[FieldViolation]) -> list[FieldViolation]:
    """Keep an answer to hostile text short; nobody mends a hundred fields at once."""
    more = len(violations) - _MAX_VIOLATIONS
    if more <= 0:
        return violations
    rest = FieldViolation(ROOT, f"and {more} more bad fields; mend these first.")
    return [*violations[:_MAX_VIOLATIONS], rest]


def _shape_problems(error: ValidationError, document: object) -> Iterator[Problem]:
    yield from pydantic_problems(error, Strategy, document)


def _rule_problems(document: dict[str, Any]) -> Iterator[Problem]:
    yield from indicator_problems(document)
    yield from link_problems(document)

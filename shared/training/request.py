"""The request: what one training is asked to run on, and whether it can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from shared.marketdata.bars import BarSource, check_series
from shared.rpc.errors import FieldViolation
from shared.training.strategy import MultiSymbol, MultiTimeframe, Strategy

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What to train on; empty and None mean what the strategy, or the data, say."""

    symbols: tuple[str, ...] = ()
    timeframes: tuple[str, ...] = ()
    start: datetime | None = None
    """Use bars that start at or after this time (aware)."""
    end: datetime | None = None
    """Use bars that start before this time (aware)."""
    seed: int | None = None
    """Makes the run repeatable; None: drawn."""

    def completed(self, strategy: Strategy) -> TrainingRequest:
        """Return the request with the strategy's symbols and timeframes where it has none."""
        data = strategy.training_data
        return replace(
            self,
            symbols=self.symbols or (data.symbols.names if data.symbols else ()),
            timeframes=self.timeframes or (data.timeframes.names if data.timeframes else ()),
        )


def check_request(
    strategy: Strategy | None, request: TrainingRequest, bars: BarSource | None
) -> list[FieldViolation]:
    """Return a violation for each field that forbids the training; none if it can start.

    Symbols and timeframes that the strategy names are reported under their place
    in it. Without a strategy (it is bad itself) the request's own are checked;
    without bars whether there are any for them is not.
    """
    if strategy is None:
        return [
            *(check_series(bars, request.symbols, request.timeframes) if bars else ()),
            *_repeated("symbols", request.symbols),
            *_repeated("timeframes", request.timeframes),
            *_range(request),
        ]
    complete = request.completed(strategy)
    symbols_field, timeframes_field = _fields(strategy, request)
    violations: list[FieldViolation] = []
    if bars is not None:
        violations = check_series(
            bars,
            complete.symbols,
            complete.timeframes,
            symbols_field=symbols_field,
            timeframes_field=timeframes_field,
        )
    # A strategy that names one symbol has no list, so its place has no index.
    violations = [
        v if v.field.startswith(("symbols", "timeframes")) else _in_strategy(v) for v in violations
    ]
    violations += _missing("symbols", complete.symbols)
    violations += _missing("timeframes", complete.timeframes)
    violations += _repeated(symbols_field, complete.symbols)
    violations += _repeated(timeframes_field, complete.timeframes)
    return violations + _range(request)


def _fields(strategy: Strategy, request: TrainingRequest) -> tuple[str, str]:
    data, root = strategy.training_data, "strategy_yaml.training_data"
    several = isinstance(data.symbols, MultiSymbol), isinstance(data.timeframes, MultiTimeframe)
    symbols = f"{root}.symbols.{'list' if several[0] else 'symbol'}"
    timeframes = f"{root}.timeframes.{'list' if several[1] else 'timeframe'}"
    return (
        "symbols" if request.symbols else symbols,
        "timeframes" if request.timeframes else timeframes,
    )


def _in_strategy(violation: FieldViolation) -> FieldViolation:
    name, _, _ = violation.field.partition("[")
    return violation if name.endswith("list") else replace(violation, field=name)


def _missing(field: str, names: Sequence[str]) -> list[FieldViolation]:
    if names:
        return []
    text = f"name at least one, here or in strategy_yaml.training_data.{field}."
    return [FieldViolation(field, text)]


def _repeated(field: str, names: Sequence[str]) -> list[FieldViolation]:
    return [
        FieldViolation(f"{field}[{index}]", f"{name[:40]!r} is named twice; leave one out.")
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def _range(request: TrainingRequest) -> list[FieldViolation]:
    violations = []
    if request.start and request.end and request.start >= request.end:
        text = f"must be after start_time ({request.start:%Y-%m-%d %H:%M}); swap or widen them."
        violations.append(FieldViolation("end_time", text))
    if request.seed is not None and not 0 <= request.seed <= MAX_SEED:
        violations.append(FieldViolation("seed", f"must be from 0 to {MAX_SEED}."))
    return violations

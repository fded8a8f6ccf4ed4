"""The progress bridge of a training, in the words of training.

Weights: preprocessing 0 to 5 %, training 5 to 95 %, evaluation and saving 95 to
100 %. Indexes of symbols, indicators and fuzzy sets are 1-based; epochs and
batches are 0-based, as a training loop counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from shared.operations.bridge import (
    ProgressBridge,
    Record,
    refuse_beyond_floats,
    refuse_mutable,
    refuse_uncountable,
)
from shared.operations.cancellation import CancelSignal
from shared.operations.model import Metric, Progress

PREPROCESSING_END = 5.0
TRAINING_END = 95.0
PHASE_START: Mapping[str, float] = {
    "preprocessing": 0.0,
    "preparation": PREPROCESSING_END,
    "training": PREPROCESSING_END,
    "evaluation": TRAINING_END,
    "saving": 98.0,
}
SYMBOL_STEPS = (
    "loading_data",
    "computing_indicators",
    "generating_fuzzy",
    "creating_features",
    "generating_labels",
)
"""The steps of preprocessing one symbol, in order; each weighs the same."""


_BATCH = "batch"
_EPOCH = "epoch"


class TrainingProgressBridge(ProgressBridge):
    """Progress of one training; `on_batch` and `on_epoch` are the hot calls.

    Every `on_*` except on_complete and on_cancellation raises
    OperationCancelledError once `cancel` is set, after recording its report.
    """

    _logged_states = frozenset({_EPOCH})

    def __init__(self, total_epochs: int, *, cancel: CancelSignal | None = None) -> None:
        super().__init__(cancel=cancel)
        self._total_epochs = total_epochs
        self._training_started = monotonic()
        self._batches_per_epoch = 0

    # ------------------------------------------------------------- hot calls

    def on_batch(self, epoch: int, batch: int, total_batches: int) -> None:
        """Report that a batch is done; `total_batches` is per epoch. Lock-free."""
        self._latest = (monotonic(), _BATCH, epoch, batch, total_batches)
        if self.cancel.requested:
            self.cancel.raise_if_requested()

    def on_epoch(self, epoch: int, total_epochs: int, metrics: dict[str, float]) -> None:
        """Report that an epoch is done, with its figures as plain numbers.

        Raises TypeError for what is not plain: a tensor, an array, a number of NumPy;
        OverflowError for a whole number that no float holds.
        """
        values = metrics.copy()
        for value in values.values():
            if type(value) is not float:  # cheaper than its __class__; six of them are half of this
                refuse_mutable(values)
                refuse_beyond_floats(values)
                break
        # One append publishes the metric and the state that goes with it.
        self._log.append((monotonic(), _EPOCH, epoch, total_epochs, values))
        if self.cancel.requested:
            self.cancel.raise_if_requested()

    # ------------------------------------------------------------- the rest

    def on_phase(self, phase: str, message: str = "", *, total_batches: int = 0) -> None:
        """Report the start of a phase; one without a weight keeps the percentage.

        `total_batches` are the batches per epoch, given with "training".
        """
        if phase == "training":
            self._training_started = monotonic()
            self._batches_per_epoch = total_batches
        self._update_state(PHASE_START.get(phase), message, phase=phase)

    def on_symbol_processing(
        self, symbol: str, symbol_index: int, total_symbols: int, step: str
    ) -> None:
        """Report the start of one of SYMBOL_STEPS for a symbol.

        Raises ValueError for any other step.
        """
        if step not in SYMBOL_STEPS:
            raise ValueError(f"step: {step!r} is none of {', '.join(SYMBOL_STEPS)}")
        done = SYMBOL_STEPS.index(step) / len(SYMBOL_STEPS)
        self._preprocessing(
            done,
            f"{symbol} ({symbol_index}/{total_symbols}): {step.replace('_', ' ')}",
            symbol=symbol,
            symbol_index=symbol_index,
            total_symbols=total_symbols,
            step=step,
        )

    def on_indicator_computation(
        self,
        symbol: str,
        symbol_index: int,
        total_symbols: int,
        timeframe: str,
        indicator_name: str,
        indicator_index: int,
        total_indicators: int,
    ) -> None:
        """Report that an indicator is being computed for a symbol."""
        self._preprocessing(
            (1 + (indicator_index - 1) / total_indicators) / len(SYMBOL_STEPS),
            f"{symbol} ({symbol_index}/{total_symbols}) {timeframe}: indicator "
            f"{indicator_name} ({indicator_index}/{total_indicators})",
            symbol=symbol,
            symbol_index=symbol_index,
            total_symbols=total_symbols,
            step="computing_indicators",
            timeframe=timeframe,
            indicator=indicator_name,
        )

    def on_fuzzy_generation(
        self,
        symbol: str,
        symbol_index: int,
        total_symbols: int,
        timeframe: str,
        fuzzy_set_name: str,
        fuzzy_index: int,
        total_fuzzy_sets: int,
    ) -> None:
        """Report that the memberships of a fuzzy set are being computed."""
        self._preprocessing(
            (2 + (fuzzy_index - 1) / total_fuzzy_sets) / len(SYMBOL_STEPS),
            f"{symbol} ({symbol_index}/{total_symbols}) {timeframe}: fuzzy set "
            f"{fuzzy_set_name} ({fuzzy_index}/{total_fuzzy_sets})",
            symbol=symbol,
            symbol_index=symbol_index,
            total_symbols=total_symbols,
            step="generating_fuzzy",
            timeframe=timeframe,
            fuzzy_set=fuzzy_set_name,
        )

    def on_preparation_phase(self, phase: str, message: str = "") -> None:
        """Report combining_data, splitting_data or creating_model."""
        self._update_state(
            PREPROCESSING_END, message or phase.replace("_", " "), phase="preparation", step=phase
        )

    def on_complete(self, message: str = "Training complete") -> None:
        """Report that the work is done. Never raises: a finished model stays one."""
        self._publish_state(100.0, message, {"phase": "completed"})

    def on_cancellation(self, message: str = "Training cancelled") -> None:
        """Report that the worker has stopped on request. Keeps the percentage."""
        self._publish_state(None, message, {"phase": "cancelled"})

    def _preprocessing(
        self, done: float, message: str, *, symbol_index: int, total_symbols: int, **fields: object
    ) -> None:
        """Publish preprocessing of a symbol of which the fraction `done` is done."""
        self._update_state(
            (symbol_index - 1 + done) / total_symbols * PREPROCESSING_END,
            message,
            phase="preprocessing",
            symbol_index=symbol_index,
            total_symbols=total_symbols,
            **fields,
        )

    def _publish_state(
        self, percentage: float | None, message: str, fields: Mapping[str, object]
    ) -> None:
        """Publish a state that counts no batches itself: the counts stay as they were."""
        last = self.get_status() or Progress()
        total = self._total_epochs * self._batches_per_epoch
        counts = {
            "current_step": last.current_step,
            "total_steps": self._total_epochs,
            "items_processed": last.items_processed,
            "items_total": total or last.items_total,
        }
        super()._publish_state(percentage, message, {**counts, **fields})

    # ------------------------------------------------------- resolving, at read

    def _resolve(self, record: Record) -> Progress:
        if record[1] == _BATCH:
            at, _, epoch, batch, per_epoch = record
            epochs = self._total_epochs
            done, total = epoch * per_epoch + batch + 1, epochs * per_epoch
            message = f"Epoch {epoch + 1}/{epochs}, batch {batch + 1}/{per_epoch}"
            return self._in_training(at, epoch + 1, epochs, done, total, message)
        if record[1] == _EPOCH:
            at, _, epoch, epochs, _ = record
            per_epoch = self._per_epoch()
            message = f"Epoch {epoch + 1}/{epochs}"
            return self._in_training(
                at, epoch + 1, epochs, (epoch + 1) * per_epoch, epochs * per_epoch, message
            )
        return super()._resolve(record)

    def _per_epoch(self) -> int:
        """Batches per epoch, as announced or as the last batch said."""
        latest = self._latest
        if not self._batches_per_epoch and latest is not None and latest[1] == _BATCH:
            return max(1, int(latest[4]))
        return self._batches_per_epoch or 1

    def _in_training(
        self, at: float, step: int, steps: int, done: int, total: int, message: str
    ) -> Progress:
        """Progress when `done` of `total` batches of the training are done."""
        fraction = min(1.0, done / max(1, total))  # a reader must not fail over an empty epoch
        elapsed = at - self._training_started
        left = elapsed * (1 - fraction) / fraction - (monotonic() - at)
        return Progress(
            percentage=PREPROCESSING_END + fraction * (TRAINING_END - PREPROCESSING_END),
            message=message,
            phase="training",
            current_step=step,
            total_steps=steps,
            items_processed=done,
            items_total=total,
            estimated_remaining=max(0.0, left),
        )

    def _resolve_metric(self, record: Record) -> Metric:
        if record[1] != _EPOCH:
            return super()._resolve_metric(record)
        at, _, epoch, _, values = record
        refuse_uncountable("epoch", epoch)
        figures = {str(k): float(v) for k, v in values.items() if isinstance(v, int | float)}
        labels = {str(k): v for k, v in values.items() if isinstance(v, str)}
        return Metric(self._wall(at), "epoch", epoch + 1, figures, labels)

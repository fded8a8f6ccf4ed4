"""The progress bridge of a load, in the words of loading bars.

Symbols are counted from 1. The percentage is made of the symbols done and of the
share of the rows, or of the time, of the symbol at hand.
"""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple

from shared.operations.bridge import ProgressBridge, Record, refuse_mutable, refuse_uncountable
from shared.operations.cancellation import CancelSignal
from shared.operations.model import Metric, Progress

_NUMBERS = frozenset({int, float})
_FIGURES = ("rows_loaded", "duration", "validation_time", "gaps", "rejected")
"""What a metric says of one symbol."""
_ROWS = "rows"
_NOTE = "note"
_SYMBOL = "symbol"


class _Place(NamedTuple):
    """Where the load is: the symbol at hand and what lies behind it."""

    symbol: str = ""
    number: int = 0
    total: int = 0
    rows_before: int = 0
    """Rows of the symbols that are done."""
    completed: int = 0
    """Symbols that were loaded whole."""

    def __str__(self) -> str:
        return f"{self.symbol} ({self.number}/{self.total})"


class DataLoadingProgressBridge(ProgressBridge):
    """Progress of one load; `on_symbol_progress` is the hot call.

    Every `on_*` except on_complete and on_cancellation raises
    OperationCancelledError once `cancel` is set, after recording its report.
    """

    _logged_states = frozenset({_SYMBOL})

    def __init__(self, *, cancel: CancelSignal | None = None) -> None:
        super().__init__(cancel=cancel)
        self._started = monotonic()
        self._place = _Place()

    # ------------------------------------------------------------- hot call

    def on_symbol_progress(
        self,
        symbol: str,  # noqa: ARG002  # the one at hand, which goes with the record
        rows_loaded: int,
        total_rows_estimate: int | None,
    ) -> None:
        """Report the rows loaded of the symbol at hand and how many there may be.

        Lock-free. Raises TypeError unless the numbers are plain.
        """
        if rows_loaded.__class__ is not int or total_rows_estimate.__class__ is not int:
            refuse_mutable({"rows_loaded": rows_loaded, "total_rows_estimate": total_rows_estimate})
        self._latest = (monotonic(), _ROWS, self._place, rows_loaded, total_rows_estimate)
        if self.cancel.requested:
            self.cancel.raise_if_requested()

    # ------------------------------------------------------------- the rest

    def on_symbol_started(self, symbol: str, symbol_index: int, total_symbols: int) -> None:
        """Report that the load of a symbol begins; raises TypeError unless numbers are plain."""
        if symbol_index.__class__ is not int or total_symbols.__class__ is not int:
            refuse_mutable({"symbol_index": symbol_index, "total_symbols": total_symbols})
        _, _, _, rows_before, completed = self._place
        self._place = _Place(symbol, symbol_index, total_symbols, rows_before, completed)
        self._latest = (monotonic(), _ROWS, self._place, 0, None)
        if self.cancel.requested:
            self.cancel.raise_if_requested()

    def on_symbol_completed(
        self,
        symbol: str,
        rows_loaded: int,
        duration: float,
        *,
        validation_time: float = 0.0,
        gaps: int = 0,
        rejected: int = 0,
        failure: str = "",
    ) -> None:
        """Report that the load of a symbol has ended; times are seconds.

        `failure` is the reason's constant if it was not loaded whole. Raises
        TypeError unless the numbers are plain.
        """
        figures = (rows_loaded, duration, validation_time, gaps, rejected)
        if not _NUMBERS.issuperset(map(type, figures)):
            refuse_mutable(dict(zip(_FIGURES, figures, strict=True)))
        _, number, total, rows_before, completed = self._place
        self._place = _Place(
            symbol, number, total, rows_before + rows_loaded, completed + (not failure)
        )
        # One append publishes the metric and the state that goes with it.
        self._log.append((monotonic(), _SYMBOL, self._place, figures, failure))
        if self.cancel.requested:
            self.cancel.raise_if_requested()

    def on_validation(self, step: str, message: str) -> None:
        """Report what is being validated, or what validation found."""
        self._say(message, "validation", step)

    def on_note(self, message: str) -> None:
        """Report what the load is doing, such as waiting."""
        self._say(message, "loading", "")

    def on_complete(self, message: str = "Load complete") -> None:
        """Report that the work is done. Never raises: what is kept stays kept."""
        self._publish_state(100.0, message, {"phase": "completed", **self._counts()})

    def on_cancellation(self, message: str = "Load cancelled") -> None:
        """Report that the worker has stopped on request. Keeps the percentage."""
        self._publish_state(None, message, {"phase": "cancelled", **self._counts()})

    def _say(self, message: str, phase: str, step: str) -> None:
        rows, estimate = self._at_hand()
        self._latest = (monotonic(), _NOTE, self._place, rows, estimate, message, phase, step)
        if self.cancel.requested:
            self.cancel.raise_if_requested()

    def _at_hand(self) -> tuple[int, int | None]:
        """Rows and estimate of the symbol at hand, as last reported."""
        latest = self._latest
        if latest is None or latest[2] is not self._place:
            return 0, None  # nothing has been reported of it
        return latest[3], latest[4]

    def _counts(self) -> dict[str, object]:
        """Where the load stands, for a state that counts no rows itself."""
        last = self.get_status() or Progress()
        return {
            "current_step": last.current_step,
            "total_steps": last.total_steps,
            "items_processed": last.items_processed,
            "rows_loaded": last.items_processed,
        }

    # ------------------------------------------------------- resolving, at read

    def _resolve(self, record: Record) -> Progress:
        if record[1] == _SYMBOL:
            at, _, place, _, failure = record
            message = f"{place}: {failure}" if failure else f"Loaded {place}"
            return self._in_loading(at, place, 0, 1.0, message)
        if record[1] not in {_ROWS, _NOTE}:
            return super()._resolve(record)
        at, kind, place, rows, estimate, *said = record
        done = min(1.0, rows / estimate) if estimate else 0.0
        if kind == _ROWS:
            return self._in_loading(at, place, rows, done, f"Loading {place}")
        message, phase, step = said
        if phase == "loading" and place.number:
            message = f"Loading {place}: {message}"
        return self._in_loading(at, place, rows, done, message, phase=phase, step=step)

    def _in_loading(
        self,
        at: float,
        place: _Place,
        rows: int,
        done: float,
        message: str,
        *,
        phase: str = "loading",
        step: str = "",
    ) -> Progress:
        """Progress when the fraction `done` of the symbol at hand is done."""
        share = (place.number - 1 + done) / place.total if place.number else 0.0
        loaded = place.rows_before + rows
        context = {"current_symbol": place.symbol, "rows_loaded": str(loaded), "step": step}
        return Progress(
            percentage=100.0 * share,
            message=message,
            phase=phase,
            current_step=place.number,
            total_steps=place.total or None,
            items_processed=loaded,
            estimated_remaining=self._left(at, share),
            context={name: text for name, text in context.items() if text},
        )

    def _left(self, at: float, share: float) -> float | None:
        """Seconds left at the pace so far; None before anything is done."""
        if not share:
            return None
        elapsed = at - self._started
        return max(0.0, elapsed * (1 - share) / share - (monotonic() - at))

    def _resolve_metric(self, record: Record) -> Metric:
        if record[1] != _SYMBOL:
            return super()._resolve_metric(record)
        at, _, place, figures, failure = record
        refuse_uncountable("symbol_index", place.number)
        values = {
            **dict(zip(_FIGURES, map(float, figures), strict=True)),
            "total_rows_loaded": float(place.rows_before),
            "symbols_completed": float(place.completed),
        }
        labels = {"symbol": place.symbol, "reason": failure}
        kept = {name: text for name, text in labels.items() if text}
        return Metric(self._wall(at), "symbol", place.number, values, kept)

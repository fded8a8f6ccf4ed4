"""The load of one symbol: its missing ranges, one after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from shared.clock import Clock
from shared.marketdata.bars import between, no_bars
from shared.marketdata.bridge import DataLoadingProgressBridge
from shared.marketdata.provider import BarProvider, Fetched, SeriesFailedError
from shared.marketdata.ranges import TimeRange, subtract
from shared.marketdata.request import BEGINNING, LoadMode, LoadRequest
from shared.marketdata.result import FailedSymbol, LoadedSymbol
from shared.marketdata.series_file import SeriesUnreadableError
from shared.marketdata.store import BarStore, SeriesNotFoundError
from shared.marketdata.validation import Problem, Validated, validate
from shared.marketdata.writer import SeriesWriter
from shared.operations.cancellation import CancelSignal

logger = logging.getLogger("ktrdr.marketdata")

_NAP = 0.05
"""Seconds after which a waiting fetch looks again whether it should stop."""
_NO_TIME = timedelta()


@dataclass(frozen=True, slots=True)
class LoadParts:
    """What a load works with."""

    store: BarStore
    provider: BarProvider
    bridge: DataLoadingProgressBridge
    cancel: CancelSignal
    clock: Clock


class SymbolLoad:
    """The load of one symbol, and the FetchWatch of its fetches; used once."""

    def __init__(self, parts: LoadParts, request: LoadRequest, symbol: str) -> None:
        self._parts = parts
        self._request = request
        self._symbol = symbol
        self._series = (symbol, request.timeframe)
        self._writer = SeriesWriter(parts.store, *self._series, parts.clock)
        self._rows = 0
        self._rejected = 0
        self._validation_time = 0.0
        self._estimate: int | None = None
        """Rows there will be, if the provider says; otherwise the time tells."""
        self._several = False
        self._span = self._behind = _NO_TIME  # the time to fetch, and what is fetched of it

    def run(self, wanted: TimeRange | None) -> tuple[LoadedSymbol, FailedSymbol | None]:
        """Load what is missing; return what that brought and why it is not all."""
        started = self._parts.clock.monotonic()
        failure = None
        try:
            self._load_missing(wanted)
        except (SeriesFailedError, SeriesUnreadableError) as error:
            failure = FailedSymbol(self._symbol, error.message, error.reason)
        duration = self._parts.clock.monotonic() - started
        outcome = self._outcome()
        if failure is not None:
            logger.warning("load of %s %s: %s", *self._series, failure.error)
        self._parts.bridge.on_symbol_completed(
            self._symbol,
            self._rows,
            duration,
            validation_time=self._validation_time,
            gaps=outcome.gap_count,
            rejected=self._rejected,
            failure=failure.reason if failure else "",
        )
        return outcome, failure

    # ------------------------------------------------------------- as a FetchWatch

    def note(self, message: str) -> None:
        """Show what the fetch is doing."""
        self._parts.bridge.on_note(message)

    def estimate(self, rows: int) -> None:
        """Take what the fetch at hand will bring."""
        if not self._several:  # of several fetches, one says nothing of the others
            self._estimate = rows
            self._report()

    def raise_if_cancelled(self) -> None:
        """Raise OperationCancelledError if the load should stop."""
        self._parts.cancel.raise_if_requested()

    def wait(self, seconds: float) -> None:
        """Wait; raise OperationCancelledError as soon as the load should stop."""
        until = monotonic() + seconds
        pause = threading.Event()
        while (left := until - monotonic()) > 0:
            self.raise_if_cancelled()
            pause.wait(min(left, _NAP))
        self.raise_if_cancelled()

    # ------------------------------------------------------------- the steps

    def _load_missing(self, wanted: TimeRange | None) -> None:
        missing = self._missing(wanted) if wanted else ()
        begins = self._begins(missing[0]) if missing else None
        # What lies before the first bar there is need not be asked for.
        parts = [(part, max(part.start, begins or part.start)) for part in missing]
        self._span = sum((part.end - start for part, start in parts if start < part.end), _NO_TIME)
        self._several = len(parts) > 1
        try:
            for part, start in parts:
                self._fetch(part, start)
        finally:
            self._writer.flush()  # however the load ends

    def _missing(self, wanted: TimeRange) -> tuple[TimeRange, ...]:
        if self._request.mode is LoadMode.FULL:
            return (wanted,)
        return subtract(wanted, self._parts.store.covered(*self._series))

    def _begins(self, first: TimeRange) -> datetime | None:
        begins = self._parts.provider.begins(*self._series, self)
        if begins is None and first.start <= BEGINNING:
            raise SeriesFailedError(
                f"The provider {self._parts.provider.name} does not say when the bars of "
                f"{self._symbol} begin. Name a start (start_time, `--start-date`).",
                reason="BEGINNING_UNKNOWN",
            )
        return begins

    def _fetch(self, part: TimeRange, start: datetime) -> None:
        """Fetch a missing part, which has bars from `start` on, and keep it piece by piece."""
        if start >= part.end:
            self._writer.add(no_bars(), part)
            return
        wanted = TimeRange(start, part.end)
        for piece in self._parts.provider.fetch(*self._series, wanted, self):
            checked = self._validated(piece)
            kept = between(checked.frame, piece.covered.start, piece.covered.end)
            since = part.start if piece.covered.start <= start else piece.covered.start
            self._writer.add(kept, TimeRange(since, piece.covered.end))
            self._rows += len(kept)
            self._behind += piece.covered.end - piece.covered.start
            # Last, since a report raises if the load is cancelled, and the piece is kept by now.
            self._tell(checked.problems)
            self._report()

    def _validated(self, piece: Fetched) -> Validated:
        started = self._parts.clock.monotonic()
        checked = validate(piece.frame)
        self._validation_time += self._parts.clock.monotonic() - started
        self._rejected += checked.rejected
        return checked

    def _tell(self, problems: Sequence[Problem]) -> None:
        """Say what was wrong with the bars of a piece that are not kept."""
        for problem in problems:
            logger.warning("%s %s: %s", *self._series, problem)
            self._parts.bridge.on_validation(problem.kind.value, f"{self._symbol}: {problem}")

    def _report(self) -> None:
        """Report the rows; how many there will be follows from the time if nobody says."""
        estimate = self._estimate
        if estimate is None and self._behind:
            estimate = round(self._rows * (self._span / self._behind))
        self._parts.bridge.on_symbol_progress(self._symbol, self._rows, estimate)

    def _outcome(self) -> LoadedSymbol:
        rows = gaps = 0
        with suppress(SeriesNotFoundError, SeriesUnreadableError):
            info = self._parts.store.info(*self._series)
            rows, gaps = info.row_count, info.gap_count
        return LoadedSymbol(self._symbol, self._rows, self._rejected, gaps, rows)

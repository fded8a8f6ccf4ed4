"""The loader: what is missing of each symbol, fetched, validated and kept.

Knows nothing of operations, servers or gRPC: bars come from a provider and go to
a store, progress goes to a bridge, a cancel signal says when to stop.
"""

from __future__ import annotations

from shared.clock import Clock, SystemClock
from shared.marketdata.bridge import DataLoadingProgressBridge
from shared.marketdata.provider import BarProvider
from shared.marketdata.ranges import TimeRange
from shared.marketdata.request import BEGINNING, LoadRequest
from shared.marketdata.result import DataLoadResult, FailedSymbol
from shared.marketdata.store import BarStore
from shared.marketdata.symbol_load import LoadParts, SymbolLoad
from shared.marketdata.timeframes import last_end
from shared.operations.cancellation import CancelSignal
from shared.rpc.errors import FailedPreconditionError, OperationCancelledError


class NothingLoadedError(FailedPreconditionError):
    """No symbol of a load could be loaded whole."""

    reason = "NOTHING_LOADED"

    def __init__(self, failed: tuple[FailedSymbol, ...]) -> None:
        told = "; ".join(f"{one.symbol}: {one.error}" for one in failed[:5])
        more = f" And {len(failed) - 5} more." if len(failed) > 5 else ""
        super().__init__(
            f"No symbol could be loaded. {told}{more}",
            metadata={one.symbol[:40]: one.reason for one in failed[:20]},
        )


class DataLoader:
    """Runs one load; used on one thread."""

    def __init__(
        self,
        store: BarStore,
        provider: BarProvider,
        bridge: DataLoadingProgressBridge,
        cancel: CancelSignal,
        clock: Clock | None = None,
    ) -> None:
        self._bridge = bridge
        self._clock = clock or SystemClock()
        self._parts = LoadParts(store, provider, bridge, cancel, self._clock)

    def run(self, request: LoadRequest) -> DataLoadResult:
        """Load every symbol and return what came of it.

        What has been fetched is kept, however the load ends. A symbol that cannot
        be had does not keep the others from being loaded. Bars that have not ended
        yet are left for a later load.

        Raises OperationCancelledError soon after a cancellation,
        NothingLoadedError if every symbol failed, UnavailableError if the provider
        cannot be reached, SeriesNotSavedError if bars cannot be kept.
        """
        try:
            result = self._load(request)
        except OperationCancelledError:
            self._bridge.on_cancellation()
            raise
        if len(result.symbols_failed) == len(request.symbols):
            raise NothingLoadedError(result.symbols_failed)
        self._bridge.on_complete(_summary(result))
        return result

    def _load(self, request: LoadRequest) -> DataLoadResult:
        started = self._clock.monotonic()
        wanted = self._wanted(request)
        symbols = request.symbols
        loaded, failed = [], []
        for index, symbol in enumerate(symbols, start=1):
            self._bridge.on_symbol_started(symbol, index, len(symbols))
            outcome, failure = SymbolLoad(self._parts, request, symbol).run(wanted)
            loaded.append(outcome)
            failed.extend([failure] if failure else [])
        return DataLoadResult(
            total_rows_loaded=sum(one.rows_loaded for one in loaded),
            symbols_loaded=len(symbols) - len(failed),
            symbols_failed=tuple(failed),
            duration=self._clock.monotonic() - started,
            timeframe=request.timeframe,
            symbols=tuple(loaded),
        )

    def _wanted(self, request: LoadRequest) -> TimeRange | None:
        """Return the range of bars that have ended; None if there can be none yet."""
        ended = last_end(self._clock.now(), request.timeframe)
        start, end = request.start or BEGINNING, min(request.end or ended, ended)
        return TimeRange(start, end) if start < end else None


def _summary(result: DataLoadResult) -> str:
    symbols = result.symbols_loaded
    text = f"Loaded {result.total_rows_loaded} bars of {symbols} symbol{'s' * (symbols != 1)}"
    failed = len(result.symbols_failed)
    return f"{text}; {failed} could not be loaded" if failed else text

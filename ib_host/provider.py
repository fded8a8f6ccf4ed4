"""The provider of IB's bars: asks the gateway piece by piece, at IB's pace, until it has them.

What one request brings is handed on at once. Whatever goes wrong, the next try
begins with the request that failed, so nothing is fetched twice.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd

from ib_host.gateway.gateway import IbBars
from ib_host.ib_errors import (
    Diagnosis,
    GatewayError,
    IbConnectionError,
    IbError,
    IbTimeoutError,
    IbUnreachableError,
    Verdict,
    diagnose,
)
from ib_host.instruments import Instrument, instrument
from ib_host.pacing import PacedRequest, Pacing
from ib_host.requests import (
    BAR_SIZES,
    HistoryRequest,
    bar_start,
    earliest,
    split,
)
from shared.clock import Clock, SystemClock
from shared.marketdata.bars import COLUMNS, in_canonical_form, no_bars
from shared.marketdata.provider import Fetched, FetchWatch, SeriesFailedError
from shared.marketdata.ranges import TimeRange
from shared.rpc.errors import FieldViolation, UnavailableError

T = TypeVar("T")

logger = logging.getLogger("ktrdr.ib")

_OUTAGE_WAITS = (0.2, 0.5, 1, 2, 5)
"""Seconds between looks whether IB is back; the last again and again."""
_RETRY_AFTER = 30.0
"""Seconds after which a caller may come again when nothing can be had."""


class HistoryGateway(Protocol):
    """What is needed of the gateway; see ib_host.gateway.gateway.Gateway."""

    def contract_ids(self, instrument: Instrument, check: Callable[[], None]) -> Sequence[int]:
        """Return the numbers of the contracts an instrument stands for."""
        ...

    def head(
        self,
        instrument: Instrument,
        contract_id: int,
        check: Callable[[], None],
        *,
        regular_hours: bool,
    ) -> datetime:
        """Return when the first bar there is of a contract starts."""
        ...

    def bars(
        self,
        instrument: Instrument,
        contract_id: int,
        request: HistoryRequest,
        check: Callable[[], None],
        *,
        regular_hours: bool,
    ) -> IbBars:
        """Return the bars a request asks for."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a load bears with IB."""

    outage: float = 300.0
    """Seconds without a connection after which it fails."""
    scale: float = 1.0
    """Factor of the waits before something is asked again; less for a simulator."""


class IbProvider:
    """The bars of IB, of regular trading hours unless said otherwise: a BarProvider.

    Volumes of currencies, which IB does not tell, are 0.
    """

    name = "ib"

    def __init__(
        self,
        gateway: HistoryGateway,
        pacing: Pacing | None = None,
        *,
        patience: Patience | None = None,
        regular_hours: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._gateway = gateway
        self._pacing = pacing or Pacing()
        self._patience = patience or Patience()
        self._regular_hours = regular_hours
        self._clock = clock or SystemClock()
        # Neither changes, and IB limits how often one may ask. Without a lock: of loads that ask
        # at the same time each puts the same answer there.
        self._contracts: dict[str, int] = {}
        self._heads: dict[str, datetime | None] = {}
        """None where IB does not say when the bars begin."""

    def check(self, symbols: Sequence[str], timeframe: str) -> list[FieldViolation]:
        """Return a violation for each symbol that cannot be IB's; see BarProvider.check."""
        violations = []
        for index, symbol in enumerate(symbols):
            try:
                instrument(symbol)
            except ValueError as error:
                violations.append(FieldViolation(f"symbols[{index}]", str(error)))
        if timeframe not in BAR_SIZES:
            text = f"IB has no bars of {timeframe[:40]!r}. There are: {', '.join(BAR_SIZES)}."
            violations.append(FieldViolation("timeframe", text))
        return violations

    def begins(
        self, symbol: str, timeframe: str, watch: FetchWatch | None = None
    ) -> datetime | None:
        """Return a time that no bar starts before; see BarProvider.begins.

        `watch` is told of waits, and may end them.
        """
        head = self._head(symbol, timeframe, watch or _Unwatched())
        return None if head is None else earliest(head, timeframe)

    def fetch(
        self, symbol: str, timeframe: str, wanted: TimeRange, watch: FetchWatch
    ) -> Iterator[Fetched]:
        """Yield the bars of a range; see BarProvider.fetch."""
        begins = self.begins(symbol, timeframe, watch)
        if begins is not None and begins > wanted.start:
            nothing = TimeRange(wanted.start, min(begins, wanted.end))
            yield Fetched(no_bars(), nothing)
            if begins >= wanted.end:
                return
            wanted = TimeRange(begins, wanted.end)
        for request in split(wanted, timeframe):
            yield Fetched(self._frame(symbol, timeframe, request, watch), request.covered)

    # ---------------------------------------------------------------- the requests

    def _contract(self, symbol: str, timeframe: str, watch: FetchWatch) -> int:
        if symbol not in self._contracts:
            self._require(symbol, timeframe)
            asked = instrument(symbol)
            paced = PacedRequest(asked, asked, strict=False, is_open=False)
            found = self._ask(
                _Question(symbol, f"the contract of {symbol}", paced),
                lambda: self._the_one(asked, watch),
                watch,
            )
            assert found is not None  # noqa: S101  # a contract that is not there has failed
            self._contracts[symbol] = found
        return self._contracts[symbol]

    def _the_one(self, asked: Instrument, watch: FetchWatch) -> int:
        found = self._gateway.contract_ids(asked, watch.raise_if_cancelled)
        if len(found) != 1:
            raise IbError(200, f"{len(found)} contracts fit")
        return found[0]

    def _head(self, symbol: str, timeframe: str, watch: FetchWatch) -> datetime | None:
        if symbol not in self._heads:
            contract = self._contract(symbol, timeframe, watch)
            asked = instrument(symbol)
            series = (contract, asked.exchange, asked.shows)
            self._heads[symbol] = self._ask(
                _Question(
                    symbol,
                    f"the first bar of {symbol}",
                    PacedRequest(("head", *series), series, strict=True, messages=2),
                ),
                lambda: self._gateway.head(
                    asked, contract, watch.raise_if_cancelled, regular_hours=self._regular_hours
                ),
                watch,
            )
        return self._heads[symbol]

    def _frame(
        self, symbol: str, timeframe: str, request: HistoryRequest, watch: FetchWatch
    ) -> pd.DataFrame:
        """Return the bars one request brings, as far as it covers them."""
        contract = self._contract(symbol, timeframe, watch)
        asked = instrument(symbol)
        series = (contract, asked.exchange, asked.shows)
        bars = self._ask(
            _Question(
                symbol,
                f"{symbol} {timeframe} from {request.covered.start:%Y-%m-%d}",
                PacedRequest((request, *series), series, strict=False),
            ),
            lambda: self._gateway.bars(
                asked,
                contract,
                request,
                watch.raise_if_cancelled,
                regular_hours=self._regular_hours,
            ),
            watch,
        )
        try:
            return no_bars() if bars is None else _frame(bars, timeframe, request.covered)
        except ValueError as error:
            text = f"{error}. Load again, in another timeframe if need be."
            raise SeriesFailedError(text, reason="IB_MALFORMED") from error

    def _require(self, symbol: str, timeframe: str) -> None:
        if violations := self.check([symbol], timeframe):
            text = " ".join(violation.description for violation in violations)
            raise SeriesFailedError(text, reason="NO_SUCH_SERIES")

    # ------------------------------------------------------------- asking until it works

    def _ask(self, question: _Question, work: Callable[[], T], watch: FetchWatch) -> T | None:
        """Ask when IB's limits allow, again as long as that may help; None if there is nothing."""
        trial = _Trial(question, self._patience, self._clock)
        while True:
            watch.raise_if_cancelled()
            try:
                with self._pacing.turn(question.paced, watch):
                    if trial.trouble:
                        watch.note(f"asking IB for {question.what} again")
                    return work()
            except (IbError, IbTimeoutError, IbConnectionError) as error:
                if isinstance(error, IbUnreachableError):
                    self._pacing.withdraw(question.paced)
                diagnosis = diagnose(error)
                level = logging.INFO if diagnosis.verdict is Verdict.SKIP else logging.WARNING
                logger.log(level, "%s: %s (%s)", question.what, error, diagnosis.verdict)
                if diagnosis.verdict is Verdict.SKIP:
                    return None
                delay = trial.next_wait(error, diagnosis)
                if diagnosis.reason == "IB_PACING":
                    self._pacing.hold(delay)
            _wait(delay, f"{trial.trouble} (asked for {question.what})", watch)


@dataclass(frozen=True, slots=True)
class _Question:
    """One thing to be asked."""

    symbol: str
    what: str
    """For people."""
    paced: PacedRequest


class _Trial:
    """The tries of one question: how often and how long they may go on."""

    def __init__(self, question: _Question, patience: Patience, clock: Clock) -> None:
        self._question = question
        self._patience = patience
        self._clock = clock
        self._tries: dict[str, int] = {}
        self._out_since: float | None = None
        self.trouble = ""
        """What was wrong the last time, for people."""

    def next_wait(self, error: GatewayError, diagnosis: Diagnosis) -> float:
        """Return the seconds to wait before the next try.

        Raises SeriesFailedError, or UnavailableError if all series are concerned,
        if there is no sense in another.
        """
        self.trouble = error.text if isinstance(error, IbError) else str(error)
        count = self._tries.get(diagnosis.reason, 0)
        self._tries[diagnosis.reason] = count + 1
        if diagnosis.verdict is Verdict.AWAIT:
            wait = self._wait_for_connection(count)
        else:
            self._out_since = None  # IB has said something, so it was there
            wait = diagnosis.waits[count] if count < len(diagnosis.waits) else None
        if wait is None:
            raise self._failure(diagnosis)
        return wait * self._patience.scale

    def _wait_for_connection(self, count: int) -> float | None:
        now = self._clock.monotonic()
        if self._out_since is None:
            self._out_since = now
        is_too_long = now - self._out_since >= self._patience.outage
        return None if is_too_long else _OUTAGE_WAITS[min(count, len(_OUTAGE_WAITS) - 1)]

    def _failure(self, diagnosis: Diagnosis) -> Exception:
        text = f"{diagnosis.told} (Asked for {self._question.what}: {self.trouble})"
        if diagnosis.concerns_all:
            return UnavailableError(text, reason=diagnosis.reason, retry_after=_RETRY_AFTER)
        return SeriesFailedError(
            text, reason=diagnosis.reason, metadata={"symbol": self._question.symbol[:40]}
        )


class _Unwatched:
    """The watch of one who waits without being told, and to the end."""

    def __init__(self) -> None:
        self._never = threading.Event()

    def note(self, message: str) -> None:
        """Nobody listens."""

    def estimate(self, rows: int) -> None:
        """Nobody listens."""

    def raise_if_cancelled(self) -> None:
        """Nobody cancels."""

    def wait(self, seconds: float) -> None:
        """Wait."""
        self._never.wait(seconds)


def _wait(seconds: float, why: str, watch: FetchWatch) -> None:
    """Wait, saying every second for how long and why."""
    left = seconds
    while left > 0:
        watch.note(f"waiting {math.ceil(left)} s: {why}")
        watch.wait(min(left, 1.0))
        left -= 1.0


def _frame(bars: IbBars, timeframe: str, covered: TimeRange) -> pd.DataFrame:
    """Return the bars that start in the range; raises ValueError for dates that make no sense."""
    starts = [bar_start(dated, timeframe) for dated in bars.dates]
    index = pd.DatetimeIndex(pd.to_datetime(starts, utc=True))
    values = np.array(bars.rows, dtype="float64").reshape(-1, len(COLUMNS))
    volume = COLUMNS.index("volume")
    values[values[:, volume] == -1, volume] = 0.0
    frame = pd.DataFrame(values, index=index, columns=list(COLUMNS))
    inside = (index >= pd.Timestamp(covered.start)) & (index < pd.Timestamp(covered.end))
    return in_canonical_form(frame.loc[inside])

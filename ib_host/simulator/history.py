"""What is answered to requests for contracts, head timestamps and bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from ib_host.simulator import durations
from ib_host.simulator.durations import BAR_SIZES, BarKind, BarSize
from ib_host.simulator.listings import Directory, Listing, listing_of
from ib_host.simulator.protocol import BarsRequest, HeadRequest
from ib_host.simulator.refusals import Refusal, history, no_data, not_valid
from ib_host.simulator.source import HistorySource
from ib_host.simulator.spans import Timed, covered, stated_start, timed
from shared.clock import Clock

_SIZES = {size.timeframe: size for size in BAR_SIZES.values()}
_SHOWN = frozenset(
    {
        *("TRADES", "MIDPOINT", "BID", "ASK", "BID_ASK", "ADJUSTED_LAST", "AGGTRADES", "SCHEDULE"),
        *("HISTORICAL_VOLATILITY", "OPTION_IMPLIED_VOLATILITY", "FEE_RATE"),
        *("YIELD_BID", "YIELD_ASK", "YIELD_BID_ASK", "YIELD_LAST"),
    }
)
_SMALL_BARS_KEPT = timedelta(days=182)
"""How long bars of 30 seconds and less can be had."""


@dataclass(frozen=True, slots=True)
class Bars:
    """The answer to a request for bars."""

    start: datetime
    """The end less the duration; with D the bars may begin earlier."""
    end: datetime
    implied_zone: bool
    """Whether the client is to be warned that it named no time zone."""
    dates: Sequence[str]
    """One per bar, in the format asked for."""
    frame: pd.DataFrame
    has_volume: bool


class History:
    """Answers from a source of bars; raises Refusal as TWS refuses. For one thread."""

    def __init__(
        self, source: HistorySource, clock: Clock, listings: Iterable[Listing] | None = None
    ) -> None:
        series = source.series()
        names = sorted({symbol for symbol, _ in series})
        self.directory = Directory(map(listing_of, names) if listings is None else listings)
        self._source = source
        self._clock = clock
        self._series = frozenset(series)
        # By series and whether in regular hours only; filled as asked for.
        self._timed: dict[tuple[str, str, bool], Timed] = {}
        self._known: dict[tuple[str, bool], pd.DatetimeIndex] = {}

    def bars(self, request: BarsRequest) -> Bars:
        """Answer a request for bars; raises Refusal 162, 200, 321, 10299 or 10314."""
        size = durations.bar_size(request.bar_size)
        duration = durations.duration(request.duration, size)
        _check(request)
        listing = self.directory.the_one(request.contract)
        end = durations.end(request.end, self._clock.now(), listing.hours.zone)
        nothing = no_data(listing.place, request.what)
        self._check_shown(listing, request.what, nothing)
        if (listing.series, size.timeframe) not in self._series:
            raise nothing
        if size.small and end.instant < self._clock.now() - _SMALL_BARS_KEPT:
            raise nothing
        regular = request.regular_hours
        bars = covered(
            self._bars(listing, size, regular=regular),
            self._known_sessions(listing, regular=regular),
            end.instant,
            duration,
            listing.hours,
            regular=regular,
        )
        if bars.frame.empty:
            raise nothing
        return Bars(
            start=stated_start(end.instant, duration).to_pydatetime(),
            end=end.instant,
            implied_zone=end.implied_zone,
            dates=self._dates(bars, size, listing, request.date_format),
            frame=bars.frame,
            has_volume=listing.what == "TRADES",
        )

    def head(self, request: HeadRequest) -> datetime:
        """Return when the first bar begins; raises Refusal 162, 200, 321 or 10299."""
        _check_what(request.what)
        _check_date_format(request.date_format)
        listing = self.directory.the_one(request.contract)
        nothing = history("No head time stamp")
        self._check_shown(listing, request.what, nothing)
        firsts = [
            (size.kind is BarKind.LONGER, bars.begins[0])
            for symbol, timeframe in self._series
            if symbol == listing.series and (size := _SIZES.get(timeframe))
            if len((bars := self._bars(listing, size, regular=request.regular_hours)).begins)
        ]
        if not firsts:
            raise nothing
        # Weeks come last: they begin before their first trading day.
        return min(firsts)[1].to_pydatetime()

    def _check_shown(self, listing: Listing, what: str, nothing: Refusal) -> None:
        if what == listing.what:
            return
        if what == "TRADES" and listing.sec_type == "CASH":
            raise Refusal(
                10299,
                f"Expected what to show is {listing.what}, please use that instead of TRADES.",
            )
        raise nothing

    def _bars(self, listing: Listing, size: BarSize, *, regular: bool) -> Timed:
        key = (listing.series, size.timeframe, regular)
        if key not in self._timed:
            frame = self._source.frame(listing.series, size.timeframe)
            self._timed[key] = timed(frame, size.kind, listing.hours, regular=regular)
        return self._timed[key]

    def _known_sessions(self, listing: Listing, *, regular: bool) -> pd.DatetimeIndex:
        """Return the dates on which there are bars, of whatever size up to a day."""
        key = (listing.series, regular)
        if key not in self._known:
            dates = pd.DatetimeIndex([])
            for symbol, timeframe in self._series:
                size = _SIZES.get(timeframe)
                if symbol == listing.series and size and size.kind is not BarKind.LONGER:
                    bars = self._bars(listing, size, regular=regular)
                    dates = dates.union(bars.sessions.unique())
            self._known[key] = dates
        return self._known[key]

    def _dates(
        self, bars: Timed, size: BarSize, listing: Listing, date_format: int
    ) -> Sequence[str]:
        if size.kind is BarKind.DAY:
            return bars.sessions.strftime("%Y%m%d").to_list()
        if size.kind is BarKind.LONGER:
            return [f"{day:%Y%m%d}" for day in self._last_sessions(bars.sessions, size, listing)]
        if date_format == 2:
            return [str(second) for second in bars.begins.as_unit("s").asi8.tolist()]
        zone = listing.hours.time_zone
        local = bars.begins.tz_convert(zone)
        return [f"{text} {zone}" for text in local.strftime("%Y%m%d %H:%M:%S")]

    def _last_sessions(
        self, first_days: pd.DatetimeIndex, size: BarSize, listing: Listing
    ) -> Iterable[pd.Timestamp]:
        """Return the last session in each week or month, the way TWS dates such bars."""
        known = self._known_sessions(listing, regular=True)
        step = pd.DateOffset(weeks=1) if size.timeframe == "1w" else pd.DateOffset(months=1)
        for first in first_days:
            last_day = first + step - pd.Timedelta(days=1)
            within = known[(known >= first) & (known <= last_day)]
            yield within.max() if len(within) else pd.offsets.BDay().rollback(last_day)


def _check(request: BarsRequest) -> None:
    _check_what(request.what)
    _check_date_format(request.date_format)
    if request.keeps_up:
        raise not_valid("keepUpToDate: bars as they form cannot be had here")


def _check_what(what: str) -> None:
    if what not in _SHOWN:
        raise not_valid("What to show field is missing or incorrect.")


def _check_date_format(date_format: int) -> None:
    if date_format not in {1, 2}:
        raise not_valid(f"Date formatting selection of {date_format} rejected")

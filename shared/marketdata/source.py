"""The source that trainings read: what has been loaded, else what is there without a load."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pandas as pd

from shared.marketdata.bars import BarSource, in_order, require_series
from shared.marketdata.store import BarStore, SeriesNotFoundError


class StoredBarSource:
    """The series of a store, and of a source that can be read without a load. A BarSource.

    A series that has bars in the store is read only there, as far as it was loaded.
    """

    def __init__(self, store: BarStore, direct: BarSource) -> None:
        self._store = store
        self._direct = direct

    def series(self) -> Sequence[tuple[str, str]]:
        """Return every series there is; see BarSource.series."""
        return in_order({*self._store.series(), *self._direct.series()})

    def read(
        self, symbol: str, timeframe: str, start: datetime | None, end: datetime | None
    ) -> pd.DataFrame:
        """Return the bars that start in [start, end); see BarSource.read.

        Raises SeriesUnreadableError if what was loaded cannot be read any more.
        """
        if self._has_loaded(symbol, timeframe):
            return self._store.read(symbol, timeframe, start, end)
        require_series(self, symbol, timeframe)
        return self._direct.read(symbol, timeframe, start, end)

    def _has_loaded(self, symbol: str, timeframe: str) -> bool:
        """Whether the store has bars; a load that brought none hides nothing."""
        try:
            return self._store.info(symbol, timeframe).row_count > 0
        except SeriesNotFoundError:
            return False

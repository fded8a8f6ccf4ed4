"""The source that trainings read: what has been loaded, else what is there without a load."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pandas as pd

from shared.marketdata.bars import BarSource, in_order, require_series
from shared.marketdata.store import BarStore, SeriesNotFoundError


class StoredBarSource:
    """The series of a store, and of a source that can be read without a load. A BarSource.

    A series that has bars in the store, or is nowhere else, is read only there, as
    far as it was loaded.
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
        rows = self._stored_rows(symbol, timeframe)
        # A load that brought no bars hides none.
        if rows or (rows == 0 and (symbol, timeframe) not in self._direct.series()):
            return self._store.read(symbol, timeframe, start, end)
        require_series(self, symbol, timeframe)
        return self._direct.read(symbol, timeframe, start, end)

    def trouble(self) -> str:
        """Return the other source's; see BarSource.trouble."""
        return self._direct.trouble()

    def _stored_rows(self, symbol: str, timeframe: str) -> int | None:
        """Return how many bars the store has of a series; None if it was never loaded."""
        try:
            return self._store.info(symbol, timeframe).row_count
        except SeriesNotFoundError:
            return None

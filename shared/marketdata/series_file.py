"""The file of one series: Parquet, with what has been loaded kept in its footer.

The only module that knows pyarrow. Bars are read batch by batch, so that memory
follows the batch and not the series; every page has a checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from shared.marketdata.bars import COLUMNS, between
from shared.marketdata.gaps import Gap
from shared.marketdata.ranges import TimeRange
from shared.rpc.errors import FailedPreconditionError

BATCH_ROWS = 16_384
_GROUP_ROWS = 4 * BATCH_ROWS
"""Bars that are compressed together; a range is read by its groups."""
_KEY = b"ktrdr"
_SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in COLUMNS),
    ]
)


class SeriesUnreadableError(FailedPreconditionError):
    """The file of a series is there, but cannot be read."""

    reason = "SERIES_UNREADABLE"

    def __init__(self, path: Path, cause: object) -> None:
        super().__init__(
            f"The bars in {path} cannot be read ({str(cause)[:300]}). Restore the file from a "
            "copy, or delete it and load again.",
            metadata={"path": str(path)},
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file says about its bars."""

    symbol: str
    timeframe: str
    covered: tuple[TimeRange, ...]
    """What has been loaded, oldest first, whether or not there were bars."""
    gaps: tuple[Gap, ...]
    """The oldest of the gaps that no calendar explains."""
    gap_count: int
    """How many such gaps there are."""
    updated: datetime
    """When it was written, aware."""
    format: Literal[1] = 1


_contents: TypeAdapter[Contents] = TypeAdapter(Contents)


class SeriesFile:
    """An open file of a series: one state of it, whatever replaces the file."""

    def __init__(self, path: Path, parquet: pq.ParquetFile, contents: Contents) -> None:
        self._path = path
        self._parquet = parquet
        self.contents = contents

    @classmethod
    @contextmanager
    def opened(cls, path: Path, symbol: str, timeframe: str) -> Iterator[SeriesFile]:
        """Open the file of a series. Raises FileNotFoundError, SeriesUnreadableError."""
        with _opened(path) as file:
            with _damage_named(path):
                # Buffering ahead would hold on to all that has been read.
                parquet = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
                contents = _described(parquet, symbol, timeframe)
            yield cls(path, parquet, contents)

    @property
    def rows(self) -> int:
        """How many bars there are."""
        return int(self._parquet.metadata.num_rows)

    def extent(self) -> tuple[datetime | None, datetime | None]:
        """Return the start of the first and of the last bar."""
        with _damage_named(self._path):
            spans = [span for _, span in self._groups()]
        return (spans[0][0], spans[-1][1]) if spans else (None, None)

    def batches(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        rows: int = BATCH_ROWS,
    ) -> Iterator[pd.DataFrame]:
        """Yield the bars that start in [start, end), oldest first; no frame is empty.

        Raises SeriesUnreadableError.
        """
        with _damage_named(self._path):
            chosen = [
                number
                for number, (first, last) in self._groups()
                if (start is None or last >= start) and (end is None or first < end)
            ]
            batches = self._parquet.iter_batches(rows, row_groups=chosen, use_threads=False)
        while True:
            with _damage_named(self._path):
                batch = next(batches, None)
            if batch is None:
                return
            frame = between(_frame(batch), start, end)
            if len(frame):
                yield frame

    def _groups(self) -> Iterator[tuple[int, tuple[datetime, datetime]]]:
        """Give the number of each group that has bars, with its first and last time."""
        metadata = self._parquet.metadata
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            if group.num_rows:
                times = group.column(0).statistics
                yield number, (times.min, times.max)


def write_series(
    file: IO[bytes], frames: Iterable[pd.DataFrame], contents: Callable[[], Contents]
) -> None:
    """Write bars, ascending in time, and then what there is to say about them.

    `contents` is called once all frames have been taken.
    """
    with pq.ParquetWriter(
        file, _SCHEMA, compression="zstd", use_dictionary=False, write_page_checksum=True
    ) as writer:
        for table in _grouped(frames):
            writer.write_table(table, row_group_size=_GROUP_ROWS)
        writer.add_key_value_metadata({_KEY: _contents.dump_json(contents())})


def _grouped(frames: Iterable[pd.DataFrame]) -> Iterator[pa.Table]:
    """Yield tables of whole groups, then what is left."""
    held = _SCHEMA.empty_table()
    for frame in frames:
        held = pa.concat_tables([held, _table(frame)])
        whole = len(held) // _GROUP_ROWS * _GROUP_ROWS
        if whole:
            yield held.slice(0, whole)
            held = held.slice(whole)
    if len(held):
        yield held


def _table(frame: pd.DataFrame) -> pa.Table:
    times = pd.DatetimeIndex(frame.index).as_unit("us").asi8.view("datetime64[us]")
    columns = [times, *(frame[name].to_numpy() for name in COLUMNS)]
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=_SCHEMA)


def _frame(batch: pa.RecordBatch) -> pd.DataFrame:
    """Return a batch as bars in canonical form."""
    times, *values = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
    index = pd.DatetimeIndex(times, tz="UTC", name="time")
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)), index=index)


def _described(parquet: pq.ParquetFile, symbol: str, timeframe: str) -> Contents:
    """Return what the file says of itself. Raises ValueError if it is of something else."""
    if not parquet.schema_arrow.equals(_SCHEMA):
        raise ValueError("its columns are not those of bars")
    contents = _contents.validate_json((parquet.metadata.metadata or {}).get(_KEY, b""))
    if (contents.symbol, contents.timeframe) != (symbol, timeframe):
        raise ValueError(f"it holds {contents.timeframe} bars of {contents.symbol}")
    return contents


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SeriesUnreadableError(path, error) from error


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # pydantic's is a ValueError
        raise SeriesUnreadableError(path, error) from error

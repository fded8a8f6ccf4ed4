"""Bars in a CSV file: tolerant of names and dates, strict about values.

The columns may have the names of most exports, in any order and beside others;
the delimiter may be a comma, a semicolon, a tab or a bar. A number is a plain
number with a decimal point. Nothing is guessed: what is not understood is
refused with its line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared.marketdata.bars import COLUMNS
from shared.marketdata.csv_times import TimesUnclearError, times_of
from shared.marketdata.provider import SeriesFailedError
from shared.marketdata.timeframes import TIMEFRAMES

_NAMES: Mapping[str, frozenset[str]] = {
    "time": frozenset(
        {
            *("time", "date", "datetime", "date time", "timestamp", "gmt time", "utc time"),
            *("utc", "date utc", "time utc", "datetime utc", "unix", "index", "open time"),
        }
    ),
    "open": frozenset({"open", "o", "open price", "first"}),
    "high": frozenset({"high", "h", "high price", "max"}),
    "low": frozenset({"low", "l", "low price", "min"}),
    "close": frozenset({"close", "c", "close price", "last", "close last", "price"}),
    "volume": frozenset({"volume", "v", "vol", "tick volume", "tickvol", "volume traded"}),
}
_CLOCK = "clock"
"""A column with the time of day, beside one with the date."""
_DELIMITERS = ",;\t|"
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
_MOST_COLUMNS = 500
_FEW_BARS = 5
_DAY = timedelta(days=1)


class CsvUnreadableError(SeriesFailedError):
    """A CSV file is there, but is not understood."""

    reason = "CSV_UNREADABLE"

    def __init__(self, path: Path, cause: str, line: int | None = None) -> None:
        where = path.name if line is None else f"{path.name}, line {line}"
        super().__init__(f"{where}: {cause}.", reason=self.reason, metadata={"path": str(path)})


def read_csv_bars(path: Path, timeframe: str) -> pd.DataFrame:
    """Return the bars of a file as they are written, in COLUMNS by their start in UTC.

    Order, duplicates and values are not judged; a missing value is NaN, a missing
    time NaT. Without a volume, or with -1 for every one, volume is 0. Bars of a
    day or more start at midnight UTC of the date as written.

    Raises CsvUnreadableError.
    """
    table, first_line = _table(path)
    columns = _columns(path, list(table.columns))
    there = (table != "").any(axis=1).to_numpy()
    lines = np.arange(first_line, first_line + len(table))[there]
    table = table.loc[there]
    values = {
        name: _numbers(path, table[columns[name]], lines) for name in COLUMNS if name in columns
    }
    volume = values.get("volume")
    if volume is None or (volume == -1).all():
        values["volume"] = pd.Series(0.0, index=table.index)
    times = _times(path, table, columns, lines, days=TIMEFRAMES[timeframe] >= _DAY)
    _require_timeframe(path, times, timeframe)
    index = pd.DatetimeIndex(times, name="time")
    return pd.DataFrame({name: values[name].to_numpy() for name in COLUMNS}, index=index)


def _table(path: Path) -> tuple[pd.DataFrame, int]:
    """Return the texts of a file by column, and the number of the line after its header."""
    try:
        header, number = _header(path)
        delimiter = max(_DELIMITERS, key=header.count)
        if not header.count(delimiter):
            raise CsvUnreadableError(path, _no_header(), number)
        if header.count(delimiter) >= _MOST_COLUMNS:
            text = f"it has more than {_MOST_COLUMNS} columns; leave some out"
            raise CsvUnreadableError(path, text, number)
        table = _texts(path, delimiter, number)
    except UnicodeDecodeError as error:
        raise CsvUnreadableError(path, "it is not UTF-8 text; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise CsvUnreadableError(path, f"it cannot be read ({str(error).strip()[:200]})") from error
    if not isinstance(table.index, pd.RangeIndex):
        text = "its lines have more fields than its header; remove delimiters at their ends"
        raise CsvUnreadableError(path, text, number + 1)
    return table, number + 1


def _texts(path: Path, delimiter: str, number: int) -> pd.DataFrame:
    """Return the texts of a file by column; `number` is its header's line."""
    try:
        return pd.read_csv(
            path,
            sep=delimiter,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
            skiprows=number - 1,
            skipinitialspace=True,
        )
    except pd.errors.ParserError as error:
        line, width = number, 0
        for line, fields in _widths(path, delimiter, number):
            width = width or fields
            if fields > width:
                text = (
                    f"it has {fields} fields and the header {width}; remove what is too much, or "
                    f"put a field that holds {delimiter!r} in quotation marks"
                )
                raise CsvUnreadableError(path, text, line) from error
        if "EOF inside string" not in str(error):
            raise
        text = "a quotation mark opens there and is not closed; close it or remove it"
        raise CsvUnreadableError(path, text, line) from error


def _widths(path: Path, delimiter: str, number: int) -> Iterator[tuple[int, int]]:
    """Give the line of each row and how many fields it has, from the header on.

    The last is one with a field that is too long to be one, if there is such.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(
            islice(file, number - 1, None), delimiter=delimiter, skipinitialspace=True
        )
        line = number
        with suppress(csv.Error):
            for fields in rows:
                yield line, len(fields)
                line = number + rows.line_num
            return
        yield line, 0


def _header(path: Path) -> tuple[str, int]:
    """Return the first line that is not blank, and its number."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                return line, number
    raise CsvUnreadableError(path, "it is empty; it needs a header and a line per bar")


def _columns(path: Path, names: Sequence[str]) -> Mapping[str, str]:
    """Return which column of the file is which of a bar."""
    found: dict[str, str] = {}
    for name in names:
        column = _meaning(name)
        if column == "time" and _plain(name) == "time" and _plain(found.get("time", "")) == "date":
            column = _CLOCK
        if column in found:
            both = f"{found[column]!r} and {name!r} both"
            raise CsvUnreadableError(path, f"{both} may be the {column}; remove one of them")
        if column:
            found[column] = name
    absent = [name for name in ("time", *COLUMNS[:-1]) if name not in found]
    if absent:
        raise CsvUnreadableError(path, f"it has no column {', '.join(absent)}; {_no_header()}")
    others = [name for name in names if "vol" in name.casefold()]
    if others and "volume" not in found:
        text = f"none of {', '.join(map(repr, others))} is plainly the volume; name one 'volume'"
        raise CsvUnreadableError(path, text)
    return found


def _meaning(name: str) -> str | None:
    """Return which column of a bar a name stands for, if any."""
    if name.startswith("Unnamed: 0"):
        return "time"  # what pandas makes of the empty name of an index
    plain = _plain(name)
    return next((column for column, aliases in _NAMES.items() if plain in aliases), None)


def _plain(name: str) -> str:
    """Return the words of a name, without signs and a leading number."""
    return re.sub(r"^\d+\.|[^a-z]+", " ", name.casefold().strip()).strip()


def _no_header() -> str:
    return "its first line must name the columns: time,open,high,low,close,volume"


def _numbers(path: Path, texts: pd.Series[str], lines: NDArray[np.int64]) -> pd.Series[float]:
    """Return texts as numbers, NaN where one is missing."""
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    odd = numbers.isna()
    odd &= ~texts.where(odd, "").str.strip().str.casefold().isin(_MISSING)
    if odd.any():
        place = int(odd.to_numpy().argmax())
        text = str(texts.iloc[place])[:40]
        raise CsvUnreadableError(
            path,
            f"{texts.name} is {text!r}; write plain numbers with a decimal point, such as 1234.5",
            int(lines[place]),
        )
    return numbers


def _times(
    path: Path,
    table: pd.DataFrame,
    columns: Mapping[str, str],
    lines: NDArray[np.int64],
    *,
    days: bool,
) -> pd.DatetimeIndex:
    texts = table[columns["time"]]
    if _CLOCK in columns:
        texts = (texts + " " + table[columns[_CLOCK]]).str.strip()
    try:
        return times_of(texts, days=days)
    except TimesUnclearError as error:
        raise CsvUnreadableError(path, str(error), int(lines[error.place])) from error


def _require_timeframe(path: Path, times: pd.DatetimeIndex, timeframe: str) -> None:
    """Raise CsvUnreadableError if most bars follow each other faster than they can."""
    steps = times.dropna().sort_values().to_series().diff().dropna()
    if len(steps) >= _FEW_BARS and steps.median() < TIMEFRAMES[timeframe] / 2:
        raise CsvUnreadableError(
            path,
            f"most of its bars are too close to each other for {timeframe}; name the file after "
            "the timeframe it holds",
        )

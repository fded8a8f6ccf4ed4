from __future__ import annotations

from math import isnan
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.marketdata.bars import COLUMNS
from shared.marketdata.csv_file import CsvUnreadableError, read_csv_bars

HEADER = "date,open,high,low,close,volume"
GOOD = [1.0, 2.0, 0.5, 1.5, 100.0]
LINE = "2012-01-31,1,2,0.5,1.5,100"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "IBM_1d.csv"


def rows_of(path: Path, text: str, timeframe: str = "1d") -> list[tuple[str, list[float]]]:
    """What a file of this text is read as: time and values."""
    path.write_text(text, "utf-8")
    bars = read_csv_bars(path, timeframe)
    assert (list(COLUMNS), "time") == (list(bars.columns), bars.index.name)
    return [(str(time), values) for time, values in zip(bars.index, bars.to_numpy().tolist())]  # noqa: B905  # of one frame


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{LINE}\n",
        f"{HEADER}\n{LINE}",
        f"{HEADER}\r\n{LINE}\r\n",
        f"\ufeff{HEADER}\n{LINE}\n",
        f"\n\n{HEADER}\n\n{LINE}\n\n",
        "Date;Open;High;Low;Close;Volume\n2012-01-31;1;2;0.5;1.5;100\n",
        "DATE\tOPEN\tHIGH\tLOW\tCLOSE\tVOL\n2012-01-31\t1\t2\t0.5\t1.5\t100\n",
        "timestamp,1. open,2. high,3. low,4. close,5. volume\n2012-01-31,1,2,0.5,1.5,100\n",
        "Date,Close/Last,Volume,Open,High,Low\n01/31/2012,1.5,100,1,2,0.5\n",
        "Date,Open,High,Low,Close,Adj Close,Volume\n2012-01-31,1,2,0.5,1.5,1.1,100\n",
        "date, open, high, low, close, volume\n2012-01-31, 1, 2, 0.5, 1.5, 100\n",
        '"Date","Open","High","Low","Close","Volume"\n"Jan 31, 2012","1","2","0.5","1.5","100"\n',
        "<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\nD,20120131,000000,1,2,0.5,1.5,100\n",
        "Unix,O,H,L,C,V\n1327968000,1,2,0.5,1.5,100\n",
        ",open,high,low,close,volume\n2012-01-31,1,2,0.5,1.5,1e2\n",
    ],
)
def test_files_of_many_origins_are_read(path: Path, text: str) -> None:
    assert [("2012-01-31 00:00:00+00:00", GOOD)] == rows_of(path, text)


def test_the_time_of_day_may_have_a_column_of_its_own(path: Path) -> None:
    text = "Date,Time,Open,High,Low,Close,Volume\n2012.01.31,14:30,1,2,0.5,1.5,100\n"

    assert [("2012-01-31 14:30:00+00:00", GOOD)] == rows_of(path, text, "1h")


@pytest.mark.parametrize(
    "text", ["date,open,high,low,close\n2012-01-31,1,2,0.5,1.5\n", f"{HEADER}\n{LINE[:-3]}-1\n"]
)
def test_without_a_volume_it_is_zero(path: Path, text: str) -> None:
    assert [("2012-01-31 00:00:00+00:00", [*GOOD[:4], 0.0])] == rows_of(path, text)


def test_one_negative_volume_is_left_to_validation(path: Path) -> None:
    rows = rows_of(path, f"{HEADER}\n{LINE}\n2012-02-01,1,2,0.5,1.5,-1\n")

    assert [100.0, -1.0] == [values[4] for _, values in rows]


@pytest.mark.parametrize("text", ["", "NaN", "null", "N/A", "-", " "])
def test_a_missing_value_is_left_to_validation(path: Path, text: str) -> None:
    ((_, values),) = rows_of(path, f"{HEADER}\n2012-01-31,1,{text},0.5,1.5,100\n")

    assert isnan(values[1])


def test_missing_times_and_fields_are_left_to_validation(path: Path) -> None:
    rows = rows_of(path, f"{HEADER}\n{LINE}\n,1,2,0.5,1.5,100\n2012-02-01,1,2,0.5,1.5\n")

    assert ["2012-01-31 00:00:00+00:00", "NaT", "2012-02-01 00:00:00+00:00"] == [
        time for time, _ in rows
    ]
    assert isnan(rows[2][1][4])


def test_a_header_alone_holds_no_bars(path: Path) -> None:
    assert [] == rows_of(path, f"{HEADER}\n")


def test_order_and_repeated_rows_are_kept_as_they_are(path: Path) -> None:
    days = ["2012-02-02", "2012-02-01", "2012-02-02"]
    rows = rows_of(path, "\n".join([HEADER, *(f"{day}{LINE[10:]}" for day in days)]))

    assert days == [time[:10] for time, _ in rows]


FAULTS = {
    "": "IBM_1d.csv: it is empty; it needs a header and a line per bar.",
    "\n\n": "IBM_1d.csv: it is empty; it needs a header and a line per bar.",
    "hello\nworld\n": "IBM_1d.csv, line 1: its first line must name the columns: time,open,",
    f"{LINE}\n": "IBM_1d.csv: it has no column time, open, high, low, close; its first line must",
    "date,open,high,low\n2012-01-31,1,2,0.5\n": "IBM_1d.csv: it has no column close; its first",
    "date,open,high,low,close,last\n2012-01-31,1,2,0.5,1,1\n": (
        "IBM_1d.csv: 'close' and 'last' both may be the close; remove one of them."
    ),
    "unix,date,open,high,low,close\n1,2012-01-31,1,2,0.5,1\n": (
        "IBM_1d.csv: 'unix' and 'date' both may be the time; remove one of them."
    ),
    "date,open,high,low,close,Volume BTC\n2012-01-31,1,2,0.5,1,1\n": (
        "IBM_1d.csv: none of 'Volume BTC' is plainly the volume; name one 'volume'."
    ),
    f"{HEADER}\n\n2012-01-31,$1,2,0.5,1.5,100\n": (
        "IBM_1d.csv, line 3: open is '$1'; write plain numbers with a decimal point"
    ),
    f'{HEADER}\n{LINE}\n2012-02-01,1,"1,234.5",0.5,1.5,100\n': (
        "IBM_1d.csv, line 3: high is '1,234.5'; write plain"
    ),
    f"{HEADER}\n2012-01-31,1_0,2,0.5,1.5,100\n": "IBM_1d.csv, line 2: open is '1_0'",
    f"{HEADER}\n2012-01-31,0x1,2,0.5,1.5,100\n": "IBM_1d.csv, line 2: open is '0x1'",
    f"{HEADER}\n2012-01-31,True,2,0.5,1.5,100\n": "IBM_1d.csv, line 2: open is 'True'",
    f"{HEADER}\n{LINE}\nyesterday,1,2,0.5,1.5,100\n": (
        "IBM_1d.csv, line 3: 'yesterday' is no time, or is written in another way than the first"
    ),
    f"{HEADER}\n02/03/2012,1,2,0.5,1.5,100\n": (
        "IBM_1d.csv, line 2: it is not clear which number of '02/03/2012' is the day"
    ),
    f"{HEADER}\n{LINE},9\n": "IBM_1d.csv, line 2: its lines have more fields than its header",
    f"{HEADER}\n{LINE}\n{LINE},9\n": (
        "IBM_1d.csv, line 3: it has 7 fields and the header 6; remove what is too much, or put a "
        "field that holds ',' in quotation marks."
    ),
    f"\n\n{HEADER}\n\n{LINE}\n{LINE},9,9\n": "IBM_1d.csv, line 6: it has 8 fields and the",
    f'{HEADER},note\n{LINE},"a\nb"\n{LINE},c,9\n': "IBM_1d.csv, line 4: it has 8 fields and the",
    f"{HEADER}\n{LINE}\n{LINE},9\n".replace(",", ";"): (
        "IBM_1d.csv, line 3: it has 7 fields and the header 6; remove what is too much, or put a "
        "field that holds ';' in"
    ),
    f'{HEADER}\n"{LINE}\n': (
        "IBM_1d.csv, line 2: a quotation mark opens there and is not closed; close it or remove it."
    ),
    f'{HEADER}\n{LINE}\n2012-02-01,"{200_000 * "1"}\n': (
        "IBM_1d.csv, line 3: a quotation mark opens there and is not closed;"
    ),
}


@pytest.mark.parametrize(("text", "message"), FAULTS.items(), ids=map(repr, FAULTS.values()))
def test_what_is_not_understood_is_refused_with_its_place_and_the_mend(
    path: Path, text: str, message: str
) -> None:
    path.write_text(text, "utf-8")

    with pytest.raises(CsvUnreadableError) as raised:
        read_csv_bars(path, "1d")

    assert str(raised.value).startswith(message)
    assert ("CSV_UNREADABLE", str(path)) == (raised.value.reason, raised.value.metadata["path"])


def test_a_file_that_is_no_text_is_refused(path: Path) -> None:
    path.write_bytes(f"{HEADER}\nJänner".encode("latin-1"))

    with pytest.raises(CsvUnreadableError, match="save it as UTF-8"):
        read_csv_bars(path, "1d")


@pytest.mark.parametrize("timeframe", ["1d", "4h"])
def test_bars_shorter_than_the_name_says_are_refused(path: Path, timeframe: str) -> None:
    lines = [f"2012-01-31 {hour:02}:00,1,2,0.5,1.5,100" for hour in range(20)]
    path.write_text("\n".join([HEADER, *lines]))

    with pytest.raises(CsvUnreadableError, match=f"too close to each other for {timeframe}"):
        read_csv_bars(path, timeframe)
    assert 20 == len(read_csv_bars(path, "1h"))


@settings(deadline=None)  # each example writes a file
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=5))
def test_numbers_are_read_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float]
) -> None:
    path = tmp_path_factory.getbasetemp() / "X_1d.csv"
    frame = pd.DataFrame([numbers, GOOD], columns=list(COLUMNS), index=["2012-01-31", "2012-02-01"])
    frame.to_csv(path, index_label="date")

    assert numbers == read_csv_bars(path, "1d").to_numpy()[0].tolist()

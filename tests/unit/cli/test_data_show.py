import json
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from matplotlib.image import imread

from backend.cli.bars import table_lines
from backend.cli.failures import ExitCode
from ktrdr.marketdata.v1 import bar_pb2
from ktrdr.marketdata.v1 import market_data_service_pb2 as service
from shared.marketdata.csv_file import read_csv_bars
from tests.unit.cli.command_line import Run
from tests.unit.cli.market_samples import FALLS, RISES, instant, sent, series, some_bars
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

NOT_FOUND = Refusal(grpc.StatusCode.NOT_FOUND, "There are none.", "SERIES_NOT_FOUND")


@pytest.fixture
def show(ktrdr: Run, scripted: ScriptedBackend) -> Run:
    """Run `ktrdr data show` on a backend that holds two bars, sent one by one."""
    scripted.script("ReadBars", sent(RISES), sent(FALLS))
    return lambda *arguments: ktrdr("data", "show", *arguments)


def test_bars_are_rows_with_the_day(show: Run) -> None:
    ended = show("IBM", "1d")
    assert ExitCode.DONE == ended.exit_code
    assert [
        "time (UTC)   open   high   low  close  volume",
        "2012-01-03  10.00  12.50  9.50  12.00   1,000",
        "2012-01-04  12.00  12.25  8.00   9.00   2,500",
    ] == ended.stdout.splitlines()
    assert "2 bars of IBM 1d.\n" == ended.stderr


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (45, "open high low close volume"),
        (44, "high low close volume"),
        (40, "high low close volume"),
        (30, "close volume"),
        (5, "close"),
    ],
)
def test_where_there_is_no_room_the_most_telling_columns_stay(width: int, columns: str) -> None:
    heading, first, *_ = table_lines(some_bars(2), 2, width)
    assert f"time (UTC) {columns}" == " ".join(heading.split())
    assert 1 + len(columns.split()) == len(first.split())


def test_bars_within_a_day_have_the_time_too(show: Run) -> None:
    assert "2012-01-03 00:00  10.00" in show("IBM", "1h").stdout


def test_prices_have_as_many_decimals_as_they_need(show: Run, scripted: ScriptedBackend) -> None:
    rate = RISES._replace(open=1.08425, high=1.1, low=1.08, close=1.09)
    scripted.script("ReadBars", sent(rate))
    assert ["1.08425", "1.10000"] == show("EUR.USD", "1d").stdout.splitlines()[1].split()[1:3]


def test_everything_typed_is_in_the_request(show: Run, scripted: ScriptedBackend) -> None:
    show("IBM", "1d", "--start-date", "2012-01-01", "--end-date", "2012-01-31", "--limit", "7")
    (request,) = scripted.requests["ReadBars"]
    assert ("IBM", "1d", 7) == (request.symbol, request.timeframe, request.limit)
    assert datetime(2012, 1, 1, tzinfo=UTC) == request.start_time.ToDatetime(UTC)
    assert datetime(2012, 2, 1, tzinfo=UTC) == request.end_time.ToDatetime(UTC)


def test_a_table_whose_length_nobody_names_is_short_and_says_so(
    show: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("ReadBars", *(service.ReadBarsResponse(chunk=c) for c in some_bars(51).chunks))
    ended = show("IBM", "1d")
    assert 51 == len(ended.stdout.splitlines())
    assert "The first 50 bars of IBM 1d; --limit N shows more" in ended.stderr
    assert 51 == scripted.requests["ReadBars"][0].limit


def test_csv_and_json_have_all_bars(show: Run, scripted: ScriptedBackend) -> None:
    show("IBM", "1d", "--format", "csv")
    show("IBM", "1d", "--format", "json")
    assert [0, 0] == [request.limit for request in scripted.requests["ReadBars"]]


def test_csv_is_exact_and_can_be_loaded_again(
    show: Run, scripted: ScriptedBackend, tmp_path: Path
) -> None:
    odd = FALLS._replace(open=0.1 + 0.2, high=1 / 3, low=1e-9, close=12.0, volume=0.5)
    scripted.script("ReadBars", sent(RISES), sent(odd))
    stdout = show("IBM", "1d", "--format", "csv").stdout
    assert "time,open,high,low,close,volume" == stdout.splitlines()[0]
    (tmp_path / "IBM_1d.csv").write_text(stdout, encoding="utf-8")
    read = read_csv_bars(tmp_path / "IBM_1d.csv", "1d")
    assert [RISES[1:], odd[1:]] == [tuple(row) for row in read.itertuples(index=False)]


def test_json_is_one_document(show: Run) -> None:
    document = show("IBM", "1d", "--format", "json").document
    assert ("IBM", "1d") == (document["symbol"], document["timeframe"])
    assert [10.0, 12.0] == [bar["open"] for bar in document["bars"]]
    assert "2012-01-03T00:00:00Z" == document["bars"][0]["time"]


def test_a_range_without_bars_is_empty_in_every_form(show: Run, scripted: ScriptedBackend) -> None:
    scripted.script("ReadBars")
    assert ("", "0 bars of IBM 1d.\n") == (show("IBM", "1d").stdout, show("IBM", "1d").stderr)
    assert "" == show("IBM", "1d", "--chart").stdout
    assert "time,open,high,low,close,volume\n" == show("IBM", "1d", "--format", "csv").stdout
    assert [] == json.loads(show("IBM", "1d", "--format", "json").stdout)["bars"]


def test_a_series_that_is_not_there_says_how_to_load_it(
    show: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("ReadBars", NOT_FOUND)
    ended = show("IBM", "1d")
    assert ExitCode.USAGE == ended.exit_code
    assert "Error: no 1d bars of IBM have been loaded (SERIES_NOT_FOUND)." in ended.stderr
    assert f"ktrdr data load IBM 1d --backend {scripted.address}" in ended.stderr
    assert "ktrdr data list" in ended.stderr


def test_a_symbol_that_means_something_to_a_shell_is_quoted_in_what_to_type(
    show: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("ReadBars", NOT_FOUND)
    ended = show("M&M", "1d")
    assert "Error: no 1d bars of M&M have been loaded" in ended.stderr
    assert "ktrdr data load 'M&M' 1d" in ended.stderr


def test_a_bad_field_is_told_with_its_argument(show: Run, scripted: ScriptedBackend) -> None:
    violations = [("timeframe", "must be one of 1m")]
    code = grpc.StatusCode.INVALID_ARGUMENT
    scripted.script("ReadBars", Refusal(code, "bad", "INVALID_ARGUMENT", violations=violations))
    assert "  - timeframe (TIMEFRAME): must be one of 1m" in show("IBM", "7d").stderr


def test_a_stream_that_breaks_off_prints_nothing(show: Run, scripted: ScriptedBackend) -> None:
    scripted.script("ReadBars", sent(RISES), Refusal(grpc.StatusCode.UNAVAILABLE, "gone"))
    ended = show("IBM", "1d", "--format", "csv")
    assert (ExitCode.UNREACHABLE, "") == (ended.exit_code, ended.stdout)


def test_bars_with_values_missing_are_refused(show: Run, scripted: ScriptedBackend) -> None:
    broken = bar_pb2.BarChunk(times=[1, 2], open=[1.0])
    scripted.script("ReadBars", service.ReadBarsResponse(chunk=broken))
    ended = show("IBM", "1d")
    assert ExitCode.FAILED == ended.exit_code
    assert "sent bars with values missing" in ended.stderr


def test_a_chart_takes_the_place_of_the_table(show: Run) -> None:
    stdout = show("IBM", "1d", "--chart").stdout
    assert "time (UTC)" not in stdout
    assert "░" in stdout
    assert "█" in stdout


def test_a_picture_is_saved_beside_the_table(show: Run, tmp_path: Path) -> None:
    path = tmp_path / "ibm.png"
    ended = show("IBM", "1d", "--plot", str(path))
    assert "2012-01-03  10.00" in ended.stdout
    assert f"picture: {path}" in ended.stderr
    assert imread(path).shape[1] >= 1000


def test_without_bars_there_is_no_picture(
    show: Run, scripted: ScriptedBackend, tmp_path: Path
) -> None:
    scripted.script("ReadBars")
    path = tmp_path / "ibm.png"
    assert "No picture" in show("IBM", "1d", "--plot", str(path)).stderr
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("IBM", "1d", "--chart", "--format", "csv"), "a chart is drawn in place of the table"),
        (("IBM", "1d", "--plot", "p.jpg"), "'--plot': p.jpg does not end in .png"),
        (("IBM", "1d", "--limit", "0"), "should be greater than or equal to 1"),
        (("IBM", "1d", "--end-date", "31.1.2012"), "'--end-date': '31.1.2012' is not a day"),
    ],
)
def test_a_bad_option_is_named_before_anything_is_asked(
    show: Run, scripted: ScriptedBackend, arguments: tuple[str, ...], complaint: str
) -> None:
    ended = show(*arguments)
    assert ExitCode.USAGE == ended.exit_code
    assert complaint in ended.complaint
    assert not scripted.requests


def test_series_are_listed_within_80_columns(ktrdr: Run, scripted: ScriptedBackend) -> None:
    listed = service.ListSeriesResponse(
        series=[series(), series("GOOG")], total_count=3, unreadable=["1d/BAD.parquet"]
    )
    scripted.script("ListSeries", listed)
    ended = ktrdr("data", "list", "--limit", "2")
    rows = ended.stdout.splitlines()
    covered = "2004-08-19..2013-03-01"
    assert ["IBM", "1d", "2004-08-20", "2013-02-28", "2,148", "1", covered] == rows[1].split()
    assert max(len(row.rstrip()) for row in rows) <= 80
    assert "2 of 3 series." in ended.stderr
    assert "1d/BAD.parquet could not be read" in ended.stderr


def test_a_series_in_many_parts_shows_the_first_of_them(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    parts = [
        bar_pb2.TimeRange(start_time=instant(year, 1, 1), end_time=instant(year, 2, 1))
        for year in range(2001, 2006)
    ]
    many = series()
    del many.covered[:]
    many.covered.extend(parts)
    scripted.script("ListSeries", service.ListSeriesResponse(series=[many], total_count=1))
    stdout = ktrdr("data", "list").stdout
    assert "2001-01-01..2001-01-31" in stdout
    assert "and 2 more" in stdout


def test_pages_of_series_are_read_to_the_last(ktrdr: Run, scripted: ScriptedBackend) -> None:
    first = service.ListSeriesResponse(series=[series("A")], total_count=2)
    first.next_page_token = "b"  # noqa: S105  # a page token is no secret
    second = service.ListSeriesResponse(series=[series("B")], total_count=2)
    scripted.script("ListSeries", first, second)
    document = ktrdr("data", "list", "--format", "json").document
    assert ["A", "B"] == [one["symbol"] for one in document["series"]]
    assert ["", "b"] == [request.page_token for request in scripted.requests["ListSeries"]]


def test_no_series_are_told(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("ListSeries", service.ListSeriesResponse())
    ended = ktrdr("data", "list")
    assert ("", "0 series.\n") == (ended.stdout, ended.stderr)

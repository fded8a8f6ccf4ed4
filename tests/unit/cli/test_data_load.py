import io
from datetime import UTC, datetime

import grpc
import pytest
from rich.console import Console

from backend.cli.displays import bar, message_of
from backend.cli.failures import ExitCode
from ktrdr.marketdata.v1 import market_data_service_pb2 as service
from ktrdr.operations.v1 import operations_service_pb2
from tests.unit.cli.command_line import FakeTime, Run
from tests.unit.cli.market_samples import (
    LOAD_ID,
    load_result,
    loading,
    started,
    symbol_metric,
)
from tests.unit.cli.samples import COMPLETED, PENDING, look, operation
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend

UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "gone")


@pytest.fixture
def load(ktrdr: Run, scripted: ScriptedBackend) -> Run:
    """Run `ktrdr data load` on a backend that starts and completes a load of two symbols."""
    scripted.script("StartDataLoad", started())
    scripted.script(
        "GetOperation",
        look(loading(PENDING)),
        look(loading(symbol="IBM", number=1)),
        look(loading(symbol="GOOG", number=2, rows=3_000), symbol_metric(1, "IBM")),
        look(loading(COMPLETED), symbol_metric(2, "GOOG")),
    )
    return lambda *arguments: ktrdr("data", "load", *arguments)


def test_a_request_id_that_is_empty_is_refused_and_none_made_up_in_its_place(
    load: Run, scripted: ScriptedBackend
) -> None:
    ended = load("IBM", "1d", "--request-id", "")
    assert ExitCode.USAGE == ended.exit_code
    assert "Invalid value for '--request-id': it is empty" in ended.complaint
    assert not scripted.requests["StartDataLoad"]


def test_a_load_is_started_and_watched_symbol_by_symbol(load: Run) -> None:
    ended = load("IBM,GOOG", "1d")
    assert ExitCode.DONE == ended.exit_code
    lines = ended.stdout.splitlines()
    assert [
        f"Started {LOAD_ID}",
        "",
        "[  ? %] waiting for a worker",
        "[  0 %] loading: Loading IBM (1/2)",
        " symbol      rows  rejected      gaps   seconds    rows/s  labels",
        "    1/2     2,000         3         1      1.00     2,000  symbol=IBM",
        "[ 50 %] loading: Loading GOOG (2/2) · 3,000 rows · 1,500 rows/s",
        "    2/2     2,000         3         1      1.00     2,000  symbol=GOOG",
    ] == lines[:8]


def test_the_result_has_a_row_per_symbol_and_totals(load: Run) -> None:
    lines = [line.split() for line in load("IBM,GOOG", "1d").stdout.splitlines()]
    assert ["symbol", "rows", "loaded", "rejected", "gaps", "rows", "now"] in lines
    assert ["IBM", "2,000", "3", "0", "2,148"] in lines
    assert ["loaded", "4,000", "bars", "of", "1d"] in lines
    assert ["symbols", "2"] in lines
    assert ["time", "2.0", "s"] in lines
    assert ["speed", "2,000", "rows/s"] in lines


@pytest.mark.parametrize(
    ("start", "rows_now", "hint"),
    [
        ("2099-01-01T00:00:00+00:00", 0, "Nothing is in that range yet: it begins in the future"),
        ("2099-01-01T00:00:00+00:00", 2_148, "it begins in the future, on 2099-01-01."),
        ("1950-01-01T00:00:00+00:00", 0, "There is nothing in that range; name an earlier or"),
        ("", 2_148, "Nothing new: what there is in that range, if anything, has been loaded"),
        ("nonsense", 0, "There is nothing in that range;"),
        ("1950-01-01", 0, "There is nothing in that range;"),
    ],
)
def test_a_load_that_brings_nothing_says_why(
    load: Run, scripted: ScriptedBackend, start: str, rows_now: int, hint: str
) -> None:
    done = loading(COMPLETED)
    done.create_time.FromDatetime(datetime(2024, 1, 31, tzinfo=UTC))
    done.metadata["start_time"] = start
    result = load_result()
    result.total_rows_loaded = 0
    for one in result.symbols:
        one.rows_loaded, one.row_count = 0, rows_now
    done.result.Pack(result)
    scripted.script("GetOperation", look(done))
    ended = load("IBM,GOOG", "1d")
    assert ExitCode.DONE == ended.exit_code
    assert hint in ended.stdout


@pytest.mark.parametrize("failed", [(), ("GOOG",)])
def test_a_load_that_brings_something_or_says_what_failed_has_no_note(
    load: Run, scripted: ScriptedBackend, failed: tuple[str, ...]
) -> None:
    scripted.script("GetOperation", look(loading(COMPLETED, failed=failed)))
    assert "  note " not in load("IBM,GOOG", "1d").stdout


def test_symbols_that_failed_are_named_with_their_error_and_end_with_1(
    load: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("GetOperation", look(loading(COMPLETED, failed=("GOOG",))))
    ended = load("IBM,GOOG", "1d")
    assert ExitCode.FAILED == ended.exit_code
    assert "GOOG: It is not there. (NO_FILE)" in ended.stdout
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["GOOG", "0", "3", "0", "2,148", "failed"] in lines
    assert ["symbols", "1", "of", "2"] in lines


def test_a_wait_for_a_load_that_missed_a_symbol_ends_with_1(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    ended = operations_service_pb2.WaitOperationResponse(
        operation=loading(COMPLETED, failed=("GOOG",))
    )
    scripted.script("WaitOperation", ended)
    assert ExitCode.FAILED == ktrdr("operations", "wait", LOAD_ID).exit_code


def test_everything_typed_is_in_the_request(load: Run, scripted: ScriptedBackend) -> None:
    load(
        *("IBM, GOOG", "1d", "--mode", "full", "--request-id", "mine", "--detach"),
        *("--start-date", "2004-08-19", "--end-date", "2013-02-28"),
    )
    (request,) = scripted.requests["StartDataLoad"]
    assert (["IBM", "GOOG"], "1d", "mine") == (
        list(request.symbols),
        request.timeframe,
        request.request_id,
    )
    assert service.LOAD_MODE_FULL == request.mode
    assert datetime(2004, 8, 19, tzinfo=UTC) == request.start_time.ToDatetime(UTC)
    assert datetime(2013, 3, 1, tzinfo=UTC) == request.end_time.ToDatetime(UTC)


def test_what_is_left_out_is_left_to_the_backend(load: Run, scripted: ScriptedBackend) -> None:
    load("IBM", "1d", "--detach")
    load("IBM", "1d", "--detach")
    first, second = scripted.requests["StartDataLoad"]
    assert not any(first.HasField(name) for name in ("start_time", "end_time"))
    assert service.LOAD_MODE_MISSING == first.mode
    assert first.request_id != second.request_id


def test_a_start_is_repeated_once_with_the_same_request_id(
    load: Run, scripted: ScriptedBackend, fake_time: FakeTime
) -> None:
    scripted.script("StartDataLoad", UNAVAILABLE, started())
    assert ExitCode.DONE == load("IBM", "1d", "--detach").exit_code
    first, second = scripted.requests["StartDataLoad"]
    assert first == second
    assert [0.5] == fake_time.pauses


def test_a_start_without_an_answer_says_how_to_repeat_it(
    load: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("StartDataLoad", Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "late"))
    ended = load("IBM", "1d", "--request-id", "mine")
    assert ExitCode.UNREACHABLE == ended.exit_code
    assert "Repeat the command with --request-id mine: it finds the load" in ended.stderr


def test_ctrl_c_while_watching_leaves_the_load_to_itself(load: Run, fake_time: FakeTime) -> None:
    fake_time.during[1] = fake_time.interrupt
    ended = load("IBM", "1d")
    assert ExitCode.DONE == ended.exit_code
    assert f"ktrdr operations watch {LOAD_ID}" in ended.stderr


def test_a_detached_start_prints_the_operation_and_how_to_come_back(
    load: Run, scripted: ScriptedBackend
) -> None:
    ended = load("IBM", "1d", "--detach")
    assert f"Started {LOAD_ID}\n" == ended.stdout
    assert f"ktrdr operations watch {LOAD_ID}" in ended.stderr
    assert "GetOperation" not in scripted.requests


def test_a_load_in_json_is_one_document_with_its_result(load: Run) -> None:
    result = load("IBM,GOOG", "1d", "--format", "json").document["result"]
    assert ("4000", 2) == (result["totalRowsLoaded"], result["symbolsLoaded"])


def test_bad_fields_are_told_with_their_arguments(load: Run, scripted: ScriptedBackend) -> None:
    violations = [("symbols[1]", "unknown: XYZ"), ("timeframe", "odd"), ("end_time", "early")]
    code = grpc.StatusCode.INVALID_ARGUMENT
    refusal = Refusal(code, "bad", "INVALID_ARGUMENT", violations=violations)
    scripted.script("StartDataLoad", refusal)
    ended = load("IBM,XYZ", "1x")
    assert ExitCode.USAGE == ended.exit_code
    assert "  - symbols[1] (SYMBOLS): unknown: XYZ\n" in ended.stderr
    assert "  - timeframe (TIMEFRAME): odd\n  - end_time (--end-date): early" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("IBM,,GOOG", "1d"), "'SYMBOLS': 'IBM,,GOOG' has an empty name; write names with "),
        (("IBM", "1d", "--start-date", "soon"), "'--start-date': 'soon' is not a day"),
        (("IBM", "1d", "--mode", "some"), "'some' is not one of 'missing', 'full'."),
        (("IBM",), "Missing argument 'TIMEFRAME'"),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_begun(
    load: Run, scripted: ScriptedBackend, arguments: tuple[str, ...], complaint: str
) -> None:
    ended = load(*arguments)
    assert ExitCode.USAGE == ended.exit_code
    assert complaint in ended.complaint
    assert "strategy" not in ended.complaint
    assert not scripted.requests


def test_the_bar_says_how_many_rows_there_are_and_how_fast_they_come() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system=None)
    console.print(bar(loading(symbol="GOOG", number=2, rows=30_000)))
    assert "Loading GOOG (2/2) · 30,000 rows · 15,000 rows/s" in file.getvalue()


def test_the_message_of_other_work_is_left_as_it_is() -> None:
    training = operation(phase="training", message="Epoch 2/3")
    training.progress.items_processed = 12
    assert "Epoch 2/3" == message_of(training)

import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from backend.cli.displays import (
    BarDisplay,
    LineDisplay,
    NoDisplay,
    bar,
    display_for,
    print_metrics_table,
)
from backend.cli.watch import Look, Outage
from ktrdr.operations.v1 import operation_pb2 as op
from tests.unit.cli.samples import CANCELLING, PENDING, a_whole_training, epoch, operation


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def pipe() -> Console:
    return Console(file=io.StringIO(), width=200, markup=False, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def the_looks() -> list[Look]:
    return [Look(reply.operation, tuple(reply.metrics)) for reply in a_whole_training()]


def stale() -> op.Operation:
    operation_ = operation(phase="training", percentage=50)
    operation_.freshness.age.CopyFrom(Duration(seconds=12))
    operation_.freshness.refresh_error.message = "The host did not answer."
    return operation_


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines() -> None:
    assert isinstance(display_for(terminal()), BarDisplay)
    assert isinstance(display_for(pipe()), LineDisplay)


def test_a_pipe_gets_a_line_per_phase_and_a_row_per_epoch() -> None:
    console = pipe()
    with LineDisplay(console) as display:
        for look in the_looks():
            display.show(look)
    lines = text(console).splitlines()
    assert lines[:3] == [
        "[  ? %] waiting for a worker",
        "[  1 %] preprocessing: IBM (1/2)",
        "[ 50 %] training: Epoch 2/3",
    ]
    assert [line.split()[0] for line in lines[3:]] == ["epoch", "1/3", "2/3", "3/3"]


def test_a_pipe_gets_no_control_codes() -> None:
    console = pipe()
    with LineDisplay(console) as display:
        for look in the_looks():
            display.show(look)
    assert "\x1b" not in text(console)
    assert "\r" not in text(console)


def test_rows_that_come_with_a_later_phase_stand_before_it() -> None:
    console = pipe()
    LineDisplay(console).show(Look(operation(phase="evaluation", percentage=95), (epoch(1),)))
    assert [line.split()[0] for line in text(console).splitlines()] == ["epoch", "1", "["]


def test_a_pipe_is_told_once_that_the_state_is_stale() -> None:
    console = pipe()
    display = LineDisplay(console)
    display.show(Look(stale(), ()))
    display.show(Look(stale(), ()))
    assert text(console).count("Last known, 12 s old: The host did not answer.") == 1


def test_a_pipe_is_told_once_per_outage() -> None:
    console = pipe()
    display = LineDisplay(console)
    for _ in range(2):
        display.tell(Outage("No backend answers."))
        display.tell(Outage("No backend answers. Still not."))
        display.show(Look(operation(phase="training"), ()))
    assert text(console).count("No backend answers.") == 2


def test_a_terminal_shows_rows_above_the_bar() -> None:
    console = terminal()
    with BarDisplay(console) as display:
        for look in the_looks():
            display.show(look)
    shown = text(console)
    assert shown.index("train loss") < shown.index("  1/3") < shown.index("  3/3")
    assert "about 8 s left" in shown


def test_a_narrow_terminal_gets_rows_that_fit_and_is_told_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = terminal(40)
    print_metrics_table(console, [epoch(1)])
    assert max(map(len, text(console).splitlines())) <= 40
    assert "There is no room for 4 more figures; --format csv has them all.\n" == (
        capsys.readouterr().err
    )


def test_a_narrow_pipe_gets_every_figure() -> None:
    console = Console(file=io.StringIO(), width=40)
    print_metrics_table(console, [epoch(1)])
    assert "learn rate" in text(console)


def test_a_terminal_shows_an_outage_below_the_last_state() -> None:
    console = terminal()
    with BarDisplay(console) as display:
        display.show(Look(operation(phase="training", percentage=50), ()))
        display.tell(Outage("No backend answers."))
    assert "No backend answers." in text(console)


def test_the_bar_fits_80_columns() -> None:
    console = terminal()
    console.print(
        bar(
            operation(
                phase="preprocessing",
                message="A message that is far longer than any terminal is wide " * 3,
                percentage=100,
                left=3599,
            ),
            "notice",
        )
    )
    lines = text(console).splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].rstrip().endswith("100 % about 59 min 59 s left")


def test_the_bar_names_the_state_when_it_outweighs_the_phase() -> None:
    console = terminal()
    console.print(bar(operation(PENDING)), bar(operation(CANCELLING, phase="training")))
    assert "waiting for a worker" in text(console)
    assert "cancelling" in text(console)


def test_for_a_document_only_the_beginning_of_an_outage_is_told() -> None:
    console = pipe()
    with NoDisplay(console) as display:
        display.show(Look(operation(), (epoch(1),)))
        display.tell(Outage("No backend answers."))
        display.tell(Outage("No backend answers."))
    assert text(console) == "No backend answers.\n"

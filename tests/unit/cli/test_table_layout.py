import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.cli.table_layout import print_table


def table() -> Table:
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("operation", "done", "covered (UTC)"):
        made.add_column(heading)
    made.add_row("op_training_3f2a9c1b7d4e8a60", "50 %", "2004-08-19..2013-03-01")
    made.add_row("op_b", Text("-", style="red"), "2004-08-19\n2005-08-19")
    return made


def printed(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_table(console, table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_table_that_fits_has_a_line_per_row() -> None:
    lines = [line.rstrip() for line in printed(62).splitlines()]
    assert [
        "operation                     done  covered (UTC)",
        "op_training_3f2a9c1b7d4e8a60  50 %  2004-08-19..2013-03-01",
        "op_b                          -     2004-08-19",
        "                                    2005-08-19",
    ] == lines


@pytest.mark.parametrize("width", [20, 40, 57])
def test_where_it_does_not_fit_each_row_is_a_block_and_nothing_is_folded(width: int) -> None:
    assert [
        "op_training_3f2a9c1b7d4e8a60",
        "  done           50 %",
        "  covered (UTC)  2004-08-19..2013-03-01",
        "",
        "op_b",
        "  done           -",
        "  covered (UTC)  2004-08-19",
        "                 2005-08-19",
    ] == printed(width).splitlines()

"""How a table is laid out: in columns where it fits, else a block of lines per row."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_UNBOUND = 10_000
"""Columns of a console on which any table fits."""


def print_table(console: Console, table: Table) -> None:
    """Print a table without ever folding a cell.

    Where the console is too narrow, the first cell of each row is followed by the
    others, each with its heading on a line of its own.
    """
    options = console.options.update(max_width=_UNBOUND)
    if console.measure(table, options=options).maximum <= console.width:
        console.print(table)
        return
    for line in _blocks(table):
        console.print(line, soft_wrap=True)


def _blocks(table: Table) -> Iterator[Text]:
    headings = [_plain(column.header).strip() for column in table.columns]
    width = max(map(len, headings[1:]))
    rows = zip(*(column.cells for column in table.columns), strict=True)
    for number, (title, *cells) in enumerate(rows):
        if number:
            yield Text()
        yield Text(_plain(title).strip(), style="bold")
        for heading, cell in zip(headings[1:], cells, strict=True):
            shown = [line for line in _text(cell).split() if line.plain.strip()]
            for place, line in enumerate(shown):
                name = "" if place else heading
                yield Text.assemble((f"  {name:<{width}}  ", "bold"), line)


def _text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def _plain(cell: RenderableType) -> str:
    return _text(cell).plain

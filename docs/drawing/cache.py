"""The picture of the cache: what one query costs, and what several watchers cost together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from docs.drawing.canvas import MARGIN, WIDTH, Canvas
from docs.drawing.palette import Tone

DESCRIPTION = (
    "A query is answered from memory if what is known is young enough. Else, if its source "
    "could not be reached a moment ago, the answer is the last known one and says why. Else, "
    "if somebody is reading already, the query shares that read. Else it reads: a bridge of "
    "this process, or the owner elsewhere, for half the age it accepts itself. Below, several "
    "watchers over five seconds: of nine queries four reach the bridge, the others are "
    "answered by what the backend or the host knows; while nobody asks, nothing happens, "
    "though the worker goes on reporting."
)
_COLUMN, _GAP = 208, 29


@dataclass(frozen=True, slots=True)
class Choice:
    """A question that a query meets, and what comes of a yes."""

    question: str
    meaning: Sequence[str]
    outcome: str
    answer: Sequence[str]
    tone: Tone


CHOICES = (
    Choice(
        "young enough?",
        ("not older than the bound;", "an ended one always is"),
        "answer",
        ("what is known, with its age;", "cached: true"),
        "report",
    ),
    Choice(
        "out of reach just now?",
        ("failed less than 1 s ago,", "remembered per host"),
        "last known",
        ("and refresh_error says why;", "a strict read fails"),
        "fault",
    ),
    Choice(
        "being read already?",
        ("by a read that is sent", "late enough for this bound"),
        "share that read",
        ("one reads, all who wait", "are answered from it"),
        "ask",
    ),
    Choice(
        "read",
        ("the bridge, if it is here; else", "its owner, for half the bound"),
        "adopt",
        ("state and metrics since the", "last read; cached: false"),
        "ask",
    ),
)


@dataclass(frozen=True, slots=True)
class Query:
    """One query of the timeline."""

    at: float
    """Seconds."""
    who: str
    answered: str
    """The age of the answer."""
    depth: int
    """How far it goes: 1 to what the backend knows, 2 to the host, 3 to the bridge."""
    tone: Tone = "ask"


QUERIES = (
    Query(0.0, "A", "0 s", 3),
    Query(0.45, "B", "0.45 s", 1, "report"),
    Query(0.9, "C", "0.9 s", 1, "report"),
    Query(1.4, "A and B", "0 s", 3),
    Query(2.05, "C, forced", "0 s", 3),
    Query(3.2, "D, at host", "0 s", 3),
    Query(3.8, "A", "0.6 s", 2),
    Query(5.0, "B", "1.8 s, error", 2, "fault"),
)
KNOWN = ((0.0, 1.0), (1.4, 2.05), (2.05, 3.05), (3.8, 4.2))
"""While what the backend knows is young enough for a caller who does not say."""
HOST_KNOWN = ((0.0, 1.0), (1.4, 2.05), (2.05, 3.05), (3.2, 4.2))
READS = tuple(query.at for query in QUERIES if query.depth == 3)
AWAY = (4.4, 5.3)
"""While the host is out of reach."""

_CHOICES_AT = 96
_LINE_AT = 404
_START, _SECOND = 168, 141
_ROWS = (84, 132, 180, 228)
"""Middles of the rows, below where the timeline starts."""


def picture() -> str:
    """Draw it."""
    canvas = Canvas("What a query costs", DESCRIPTION, 716)
    canvas.text(MARGIN, 34, "What a query costs", "ink", size=18, bold=True)
    canvas.text(
        WIDTH - MARGIN,
        34,
        "the bound: OPERATIONS_CACHE_TTL (1 s), or what the caller says, which is then strict",
        "faint",
        anchor="end",
    )
    _draw_choices(canvas)
    _draw_timeline(canvas)
    return canvas.svg()


def _draw_choices(canvas: Canvas) -> None:
    y = _CHOICES_AT
    canvas.text(MARGIN, y - 20, "GetOperation", "ask-text")
    canvas.arrow([(MARGIN + 40, y - 12), (MARGIN + 40, y - 2)], "ask")
    for number, choice in enumerate(CHOICES):
        x = MARGIN + number * (_COLUMN + _GAP)
        last = number == len(CHOICES) - 1
        canvas.card(x, y, _COLUMN, 76, choice.question, choice.meaning, tone="plain")
        canvas.card(x, y + 120, _COLUMN, 76, choice.outcome, choice.answer, tone=choice.tone)
        middle = x + _COLUMN / 2
        canvas.arrow([(middle, y + 76), (middle, y + 117)], choice.tone)
        if not last:
            canvas.text(middle + 8, y + 101, "yes", f"{choice.tone}-text")
            canvas.arrow([(x + _COLUMN, y + 38), (x + _COLUMN + _GAP - 3, y + 38)], "plain")
            canvas.text(x + _COLUMN + _GAP / 2, y + 30, "no", "faint", size=12, anchor="middle")


def _draw_timeline(canvas: Canvas) -> None:
    top = _LINE_AT
    canvas.box(MARGIN - 8, top - 66, WIDTH - 2 * MARGIN + 16, 26, "band", rounding=6)
    canvas.text(MARGIN + 4, top - 48, "Several watchers of a training on a host", "ink", bold=True)
    remark = "nine queries, four reads of the bridge, none while nobody asks"
    canvas.text(WIDTH - MARGIN - 4, top - 48, remark, "faint", anchor="end")
    _draw_rows(canvas, top)
    _draw_queries(canvas, top)
    _draw_axis(canvas, top + _ROWS[-1] + 32)


def _draw_rows(canvas: Canvas, top: float) -> None:
    names = (
        ("the backend knows", "young for 1 s"),
        ("the host knows", "young for 1 s"),
        ("the bridge", "is read"),
        ("the worker", "reports"),
    )
    for (name, remark), middle in zip(names, _ROWS, strict=True):
        y = top + middle
        canvas.box(MARGIN - 8, y - 21, WIDTH - 2 * MARGIN + 16, 42, "frame", rounding=6)
        canvas.text(MARGIN + 4, y - 2, name, "ink", bold=True)
        canvas.text(MARGIN + 4, y + 14, remark, "faint", size=12)
    left, right = (_x(at) for at in AWAY)
    canvas.box(left, top + _ROWS[1] - 17, right - left, _ROWS[3] - _ROWS[1] + 34, "fault-box")
    canvas.text(
        (left + right) / 2, top + _ROWS[2] + 5, "out of reach", "fault-text", anchor="middle"
    )
    for row, spans in ((0, KNOWN), (1, HOST_KNOWN)):
        for begin, end in spans:
            y = top + _ROWS[row] - 11
            canvas.box(_x(begin), y, _x(end) - _x(begin) - 2, 22, "report-box", rounding=4)
    for at in READS:
        canvas.box(_x(at) - 6, top + _ROWS[2] - 6, 12, 12, "state-box", rounding=6)
    for tick in range(44):
        x, y = _x(tick / 10), top + _ROWS[3]
        canvas.line((x, y - 6), (x, y + 6), "report")


def _draw_queries(canvas: Canvas, top: float) -> None:
    canvas.text(MARGIN + 4, top + 2, "who asks", "faint")
    canvas.text(MARGIN + 4, top + 20, "age of the answer", "faint")
    for query in QUERIES:
        x = _x(query.at)
        canvas.text(x, top + 2, query.who, "ink", anchor="middle", bold=True)
        canvas.text(x, top + 20, query.answered, f"{query.tone}-text", anchor="middle")
        start = top + 28
        end = top + _ROWS[query.depth - 1] - (8 if query.depth == 3 else 13)
        if query.tone == "fault":
            end -= 6
        canvas.arrow([(x, start), (x, end)], query.tone)


def _draw_axis(canvas: Canvas, y: float) -> None:
    canvas.arrow([(_START, y), (_x(5.35), y)], "plain")
    for second in range(6):
        canvas.line((_x(second), y - 4), (_x(second), y + 4), "plain")
        canvas.text(_x(second), y + 20, f"{second} s", "faint", size=12, anchor="middle")


def _x(at: float) -> float:
    """Where an instant is drawn."""
    return _START + 12 + at * _SECOND

"""Sequences: who says what to whom, from top to bottom, laid out row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from docs.drawing.canvas import LINE, MARGIN, WIDTH, Canvas
from docs.drawing.palette import Tone

_TOP = 64
_HEAD = 50
_ROW = 36
_PHASE = 44
_PADDING = 10


@dataclass(frozen=True, slots=True)
class Lane:
    """Someone who takes part, with a line down the picture."""

    name: str
    x: float
    title: str
    subtitle: str
    width: float
    tone: Tone = "ask"


@dataclass(frozen=True, slots=True)
class Process:
    """A frame around the lanes that live in one process."""

    title: str
    left: float
    right: float


@dataclass(frozen=True, slots=True)
class Says:
    """An arrow from one lane to another with a label above it."""

    source: str
    target: str
    label: str
    tone: Tone = "ask"
    answer: bool = False
    passes: str = ""
    """A lane on the way; the label stands before it, so that its line does not cross the text."""


@dataclass(frozen=True, slots=True)
class Does:
    """What a lane does by itself: a box on its line."""

    lane: str
    contents: Sequence[str]
    width: float
    tone: Tone = "plain"
    shift: float = 0
    """How far right of its line the box is centred."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A heading over what follows."""

    title: str
    remark: str = ""


Step = Says | Does | Phase


def draw(
    title: str,
    description: str,
    lanes: Sequence[Lane],
    processes: Sequence[Process],
    steps: Sequence[Step],
) -> str:
    """Draw a sequence and return it as SVG."""
    first: float = _TOP + _HEAD + 26
    bottom = first + sum(_height(step) for step in steps) + 8
    canvas = Canvas(title, description, bottom + 26)
    _legend(canvas, title)
    for process in processes:
        width = process.right - process.left
        canvas.box(process.left, _TOP - 14, width, bottom - _TOP + 22, "frame", rounding=12)
        canvas.text(process.left + 12, _TOP + 6, process.title, "faint")
    for lane in lanes:
        top = _TOP + 18
        canvas.line((lane.x, top + _HEAD), (lane.x, bottom), "plain", dashed=True)
        left = lane.x - lane.width / 2
        canvas.card(left, top, lane.width, _HEAD, lane.title, [lane.subtitle], tone=lane.tone)
    y: float = first + 10
    places = {lane.name: lane.x for lane in lanes}
    for step in steps:
        _draw_step(canvas, step, places, y)
        y += _height(step)
    return canvas.svg()


def _legend(canvas: Canvas, title: str) -> None:
    canvas.text(MARGIN, 34, title, "ink", size=18, bold=True)
    x = WIDTH - 300.0
    entries: Sequence[tuple[str, Tone, bool]] = (
        ("asks", "ask", False),
        ("answers", "ask", True),
        ("reports", "report", False),
    )
    for word, tone, dashed in entries:
        canvas.arrow([(x, 29), (x + 32, 29)], tone, dashed=dashed)
        canvas.text(x + 39, 34, word, "faint")
        x += 88 if word == "asks" else 108


def _height(step: Step) -> float:
    if isinstance(step, Phase):
        return _PHASE
    return _ROW if isinstance(step, Says) else len(step.contents) * LINE + 2 * _PADDING


def _draw_step(canvas: Canvas, step: Step, places: dict[str, float], y: float) -> None:
    if isinstance(step, Phase):
        canvas.box(MARGIN - 8, y + 6, WIDTH - 2 * MARGIN + 16, 26, "band", rounding=6)
        canvas.text(MARGIN + 4, y + 24, step.title, "ink", bold=True)
        canvas.text(WIDTH - MARGIN - 4, y + 24, step.remark, "faint", anchor="end")
    elif isinstance(step, Says):
        start, end = places[step.source], places[step.target]
        gap = 3 if end > start else -3
        middle = (start + places[step.passes or step.target]) / 2
        canvas.text(middle, y + 16, step.label, f"{step.tone}-text", anchor="middle")
        ends = [(start, y + 24), (end - gap, y + 24)]
        canvas.arrow(ends, step.tone, dashed=step.answer)
    else:
        middle = places[step.lane] + step.shift
        height = len(step.contents) * LINE + 8
        canvas.box(middle - step.width / 2, y + 2, step.width, height, f"{step.tone}-box")
        canvas.lines(middle, y + 19, step.contents, anchor="middle")

"""The picture of the pull: who stands where, and what happens when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence

from docs.drawing.canvas import LINE, MARGIN, WIDTH, Canvas
from docs.drawing.palette import Tone

DESCRIPTION = (
    "On a training host, a worker thread stores its progress in a bridge, one attribute store "
    "below a microsecond, and goes on. A client's GetOperation goes to the backend's "
    "operations service with its cache and single flight; only if what is known is too old, "
    "the same call goes on to the host's, and only if that knows nothing younger either, to "
    "the bridge for a snapshot. A training in the backend itself has its bridge there, "
    "without the second hop. When nobody asks, nothing runs between them."
)
_TOP, _TALL = 112, 134
_ASK, _ANSWER = 166, 194
_CARDS: Sequence[tuple[float, float, str, Sequence[str], Tone]] = (
    (20, 112, "client", ("ktrdr, grpcurl,", "your program"), "ask"),
    (
        206,
        194,
        "OperationsService",
        (
            "young enough? answer",
            "from memory (TTL 1 s);",
            "else one caller asks and",
            "others share its read",
        ),
        "ask",
    ),
    (
        542,
        166,
        "OperationsService",
        ("the same code:", "memory, shared reads;", "here the source", "is a bridge"),
        "ask",
    ),
    (
        780,
        144,
        "ProgressBridge",
        ("the latest record,", "a log of metrics;", "calls nobody,", "knows nobody"),
        "state",
    ),
)
_HOPS: Sequence[tuple[float, float, str, Sequence[str]]] = (
    (132, 206, "", ()),
    (400, 542, "GetOperation", ("state, metrics,", "age, hops")),
    (708, 780, "snapshot", ("state,", "metrics")),
)


def picture() -> str:
    """Draw it."""
    canvas = Canvas("The picture of the pull", DESCRIPTION, 500)
    canvas.text(MARGIN, 38, "The picture of the pull", "ink", size=20, bold=True)
    _draw_legend(canvas)
    for left, width, title in (
        (190, 226, "python -m backend"),
        (526, 414, "python -m training_host"),
    ):
        canvas.box(left, 64, width, 308, "frame", rounding=12)
        canvas.text(left + 16, 90, title, "faint", size=14)
    for x, wide, heading, contents, tone in _CARDS:
        canvas.card(x, _TOP, wide, _TALL, heading, contents, tone=tone)
    for start, end, question, answer in _HOPS:
        middle = (start + end) / 2
        canvas.arrow([(start, _ASK), (end - 3, _ASK)])
        canvas.arrow([(end, _ANSWER), (start + 3, _ANSWER)], dashed=True)
        canvas.text(middle, _ASK - 10, question, "ask-text", anchor="middle")
        canvas.lines(middle, _ANSWER + 20, answer, "ask-text", anchor="middle")
    canvas.text(76, _TOP - 12, "GetOperation", "ask-text", anchor="middle")
    canvas.lines(
        76,
        _TOP + _TALL + 20,
        ("state, metrics,", "their age and", "every hop's"),
        "ask-text",
        anchor="middle",
    )
    _draw_worker(canvas)
    _draw_footer(canvas)
    return canvas.svg()


def _draw_legend(canvas: Canvas) -> None:
    entries: Sequence[tuple[float, str, Tone, bool]] = (
        (636, "asks", "ask", False),
        (732, "answers", "ask", True),
        (848, "reports", "report", False),
    )
    for x, word, tone, dashed in entries:
        canvas.arrow([(x, 33), (x + 34, 33)], tone, dashed=dashed)
        canvas.text(x + 42, 38, word, "faint")


def _draw_worker(canvas: Canvas) -> None:
    canvas.card(780, 302, 144, 54, "worker thread", ("trains, never waits",), tone="report")
    canvas.arrow([(852, 302), (852, _TOP + _TALL + 3)], "report")
    canvas.lines(
        838, 270, ("on_batch: one attribute", "store, below 1 µs"), "report-text", anchor="end"
    )
    local = (
        "A training in the backend itself",
        "has its bridge and worker here,",
        "without the second hop.",
    )
    canvas.lines(206, 318, local)
    read = (
        "The bridge is read when somebody",
        "asks and what is known is too old,",
        "and once more at the end.",
    )
    canvas.lines(542, 318, read)


def _draw_footer(canvas: Canvas) -> None:
    middle, y = WIDTH / 2, 396
    canvas.box(MARGIN, y, WIDTH - 2 * MARGIN, 80, "band", rounding=10)
    sentence = "When nobody asks, nothing runs between worker and client."
    canvas.text(middle, y + 33, sentence, "ink", size=18, anchor="middle", bold=True)
    remark = (
        "No poll, no timer, no callback, no event loop. "
        "The worker reports all the same, to an object in memory."
    )
    canvas.text(middle, y + 33 + LINE + 9, remark, size=14, anchor="middle")

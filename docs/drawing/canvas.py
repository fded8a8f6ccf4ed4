"""The canvas: boxes, lines and text, collected in order and written as one SVG.

Knows nothing of what is drawn. Lengths are pixels, y grows downwards; text is
placed by its baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape

from docs.drawing.palette import FONT, Tone, style

Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]

WIDTH = 960
"""Of every picture: what a README shows without scaling it by much."""
MARGIN = 20
LINE = 18
"""From one line of text to the next."""
TIP = "M0 0 L10 5 L0 10 z"


@dataclass(slots=True)
class Canvas:
    """A picture in the making."""

    title: str
    description: str
    """What it shows, for those who do not see it."""
    height: float
    _parts: list[str] = field(default_factory=list)
    _tones: set[str] = field(default_factory=set)

    def box(
        self, x: float, y: float, width: float, height: float, look: str, *, rounding: float = 8
    ) -> None:
        """Draw a rectangle; `look` is a class of the palette."""
        place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
        self._parts.append(f'<rect class="{look}" {place} rx="{_n(rounding)}"/>')

    def text(
        self,
        x: float,
        y: float,
        content: str,
        look: str = "soft",
        *,
        size: float = 13,
        anchor: Anchor = "start",
        bold: bool = False,
    ) -> None:
        """Write one line with its baseline at `y`; `look` is a class of the palette."""
        weight = ' font-weight="600"' if bold else ""
        aligned = f' text-anchor="{anchor}"' if anchor != "start" else ""
        self._parts.append(
            f'<text class="{look}" x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}"'
            f"{aligned}{weight}>{escape(content)}</text>"
        )

    def lines(
        self,
        x: float,
        y: float,
        contents: Sequence[str],
        look: str = "soft",
        *,
        anchor: Anchor = "start",
    ) -> None:
        """Write several lines, the first with its baseline at `y`."""
        for number, content in enumerate(contents):
            self.text(x, y + number * LINE, content, look, anchor=anchor)

    def card(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        title: str,
        contents: Sequence[str] = (),
        *,
        tone: Tone = "plain",
    ) -> None:
        """Draw a box with a heading and lines, all centred in it."""
        self.box(x, y, width, height, f"{tone}-box")
        middle = x + width / 2
        top = y + (height - LINE * len(contents)) / 2 + 5 - (3 if contents else 0)
        self.text(middle, top, title, "ink", size=14, anchor="middle", bold=True)
        self.lines(middle, top + LINE + 4, contents, anchor="middle")

    def line(self, start: Point, end: Point, tone: Tone = "plain", *, dashed: bool = False) -> None:
        """Draw a thin line without a tip."""
        (x1, y1), (x2, y2) = start, end
        dash = ' stroke-dasharray="3 4"' if dashed else ""
        self._parts.append(
            f'<path class="{tone}-line" d="M{_n(x1)} {_n(y1)} L{_n(x2)} {_n(y2)}"{dash}/>'
        )

    def arrow(self, points: Sequence[Point], tone: Tone = "ask", *, dashed: bool = False) -> None:
        """Draw a line through the points with a tip at its end; dashed for an answer."""
        self._tones.add(tone)
        path = " ".join(f"{'L' if i else 'M'}{_n(x)} {_n(y)}" for i, (x, y) in enumerate(points))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<path class="{tone}-line" stroke-width="2" d="{path}"{dash}'
            f' marker-end="url(#tip-{tone})"/>'
        )

    def svg(self) -> str:
        """Return the picture as the text of an SVG file."""
        tips = "\n".join(
            f'<marker id="tip-{tone}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="4.5" '
            f'markerHeight="4.5" orient="auto"><path class="{tone}-tip" d="{TIP}"/></marker>'
            for tone in sorted(self._tones)
        )
        size = f'viewBox="0 0 {WIDTH} {_n(self.height)}" width="{WIDTH}" height="{_n(self.height)}"'
        about = f'role="img" aria-labelledby="title desc" font-family="{FONT}"'
        sheet = f'x="0.5" y="0.5" width="{WIDTH - 1}" height="{_n(self.height - 1)}" rx="14"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about}>',
                f'<title id="title">{escape(self.title)}</title>',
                f'<desc id="desc">{escape(self.description)}</desc>',
                f"<style>\n{style()}\n</style>",
                f"<defs>\n{tips}\n</defs>",
                f'<rect class="sheet" {sheet}/>',
                *self._parts,
                "</svg>\n",
            ]
        )


def _n(number: float) -> str:
    """A number as short as it can be written."""
    return f"{number:.1f}".removesuffix(".0")

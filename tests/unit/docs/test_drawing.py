"""The pictures are what the script draws, and can be read: on any screen, without overlaps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, fromstring

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from docs.drawing.__main__ import DOCS, PICTURES
from docs.drawing.canvas import WIDTH, Canvas
from docs.drawing.palette import DARK, LIGHT, Scheme

SVG = "{http://www.w3.org/2000/svg}"
BACKGROUNDS = {"sheet", "frame"}
"""What text may lie half upon: an arrow from one process to another has one label."""


@dataclass(frozen=True, slots=True)
class Area:
    """What an element of a picture covers."""

    name: str
    left: float
    top: float
    right: float
    bottom: float

    def touches(self, other: Area) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def inside(self, other: Area) -> bool:
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.top <= self.top
            and self.bottom <= other.bottom
        )


def text_areas(picture: Element) -> list[Area]:
    """Where the text is, in a font that is wider than most."""
    areas = []
    for text in picture.iter(f"{SVG}text"):
        content, size = text.text or "", float(text.attrib["font-size"])
        font = FontProperties(family="DejaVu Sans", size=size, weight=text.get("font-weight"))
        width, _, _ = text_to_path.get_text_width_height_descent(content, font, ismath=False)
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")]
        left, base = float(text.attrib["x"]) - share * width, float(text.attrib["y"])
        areas.append(Area(content, left, base - 0.75 * size, left + width, base + 0.2 * size))
    return areas


def box_areas(picture: Element) -> list[Area]:
    areas = []
    for box in picture.iter(f"{SVG}rect"):
        x, y, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        areas.append(Area(box.attrib["class"], x, y, x + width, y + height))
    return areas


def line_areas(picture: Element) -> Iterator[Area]:
    """The straight lines, each as thin as it is; those of lanes run behind everything."""
    for path in picture.iter(f"{SVG}path"):
        if "d" not in path.attrib or "stroke-width" not in path.attrib:
            continue
        (x1, y1), (x2, y2) = (
            map(float, point.split()) for point in path.attrib["d"][1:].split(" L")
        )
        top, bottom = sorted((y1, y2))
        left, right = sorted((x1, x2))
        yield Area("line", left - 1, top - 1, right + 1, bottom + 1)


@pytest.fixture(params=PICTURES)
def picture(request: pytest.FixtureRequest) -> Element:
    return fromstring(PICTURES[request.param]())  # noqa: S314  # our own picture


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_the_script_draws(name: str) -> None:
    drawn = PICTURES[name]()
    assert drawn == (DOCS / name).read_text("utf-8"), "run make diagrams"


def test_every_picture_of_the_documents_is_drawn_by_the_script() -> None:
    found = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.svg")}
    assert set(PICTURES) == found


def test_no_text_overlaps_another(picture: Element) -> None:
    pairs = itertools.combinations(text_areas(picture), 2)
    assert [] == [(one.name, other.name) for one, other in pairs if one.touches(other)]


def test_text_stays_in_its_box(picture: Element) -> None:
    boxes = [box for box in box_areas(picture) if box.name not in BACKGROUNDS]
    assert [] == [
        (text.name, box.name)
        for text in text_areas(picture)
        for box in boxes
        if text.touches(box) and not text.inside(box)
    ]


def test_no_arrow_crosses_text(picture: Element) -> None:
    lines = list(line_areas(picture))
    assert lines
    texts = text_areas(picture)
    assert [] == [text.name for text in texts for line in lines if text.touches(line)]


def test_everything_lies_on_the_sheet(picture: Element) -> None:
    sheet, *boxes = box_areas(picture)
    assert "sheet" == sheet.name
    everything = [*boxes, *text_areas(picture), *line_areas(picture)]
    assert [] == [area.name for area in everything if not area.inside(sheet)]


def test_a_picture_says_what_it_shows_to_those_who_do_not_see_it(picture: Element) -> None:
    title, description = picture.find(f"{SVG}title"), picture.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert len(description.text or "") > 100


def test_overlaps_are_noticed() -> None:
    canvas = Canvas("A picture", "of two words", 100)
    canvas.box(10, 10, 60, 30, "plain-box")
    canvas.text(20, 30, "too long for its box")
    canvas.text(40, 30, "over it")
    canvas.arrow([(0, 25), (WIDTH + 50, 25)])
    picture = fromstring(canvas.svg())  # noqa: S314  # our own picture

    one, other = text_areas(picture)
    (line,) = line_areas(picture)
    sheet, box = box_areas(picture)
    assert one.touches(other)
    assert not one.inside(box)
    assert line.touches(one)
    assert not line.inside(sheet)


# --------------------------------------------------------------------- colours


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.1 defines it."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_on_ground(scheme: Scheme) -> Iterator[tuple[str, str]]:
    """Every colour of text with every ground that it may stand on."""
    grounds = [scheme.sheet.fill, scheme.frame, scheme.band]
    fills = [colours.fill for colours in scheme.tones.values()]
    for ink in (scheme.ink, scheme.soft, scheme.faint):
        yield from ((ink, ground) for ground in grounds + fills)
    for colours in scheme.tones.values():
        open_grounds = (scheme.sheet.fill, scheme.frame, colours.fill)
        yield from ((colours.stroke, ground) for ground in open_grounds)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read_in_both_schemes(scheme: Scheme) -> None:
    weak = {pair: round(contrast(*pair), 2) for pair in text_on_ground(scheme)}
    assert {} == {pair: found for pair, found in weak.items() if found < 4.5}


def test_contrast_is_that_of_wcag() -> None:
    assert 21.0 == pytest.approx(contrast("#000000", "#ffffff"))
    assert 1.0 == contrast("#123456", "#123456")


def test_a_dark_screen_gets_every_rule_that_a_light_one_gets(picture: Element) -> None:
    style = picture.find(f"{SVG}style")
    assert style is not None
    light, dark = (style.text or "").split("@media (prefers-color-scheme: dark) {")
    selectors = [rule.partition("{")[0].strip() for rule in light.split("\n") if "{" in rule]
    assert selectors == [rule.partition("{")[0].strip() for rule in dark.split("\n") if "{" in rule]
    used = {element.attrib["class"] for element in picture.iter() if "class" in element.attrib}
    styled = {name.removeprefix(".") for selector in selectors for name in selector.split(",")}
    assert set() == used - styled

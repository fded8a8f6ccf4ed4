"""The palette: what each tone looks like, on a light and on a dark screen.

Plain rules, no variables, so that renderers which know little CSS show the
light colours; those that know `prefers-color-scheme` choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Tone = Literal["ask", "report", "state", "record", "fault", "plain"]
"""Asking and answering, reporting, what is held in memory, what is stored, failing, the rest."""

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Colours:
    """One tone in one scheme."""

    fill: str
    stroke: str


@dataclass(frozen=True, slots=True)
class Scheme:
    """All colours of a picture on one kind of screen."""

    sheet: Colours
    frame: str
    band: str
    ink: str
    """Of headings; the next two are of sentences and of remarks."""
    soft: str
    faint: str
    tones: dict[Tone, Colours]

    def rules(self) -> Iterator[str]:
        """The CSS rules, one a line."""
        yield f".sheet{{fill:{self.sheet.fill};stroke:{self.sheet.stroke}}}"
        yield f".frame{{fill:{self.frame}}}"
        yield f".band{{fill:{self.band}}}"
        for ink in ("ink", "soft", "faint"):
            yield f".{ink}{{fill:{getattr(self, ink)}}}"
        for tone, colours in self.tones.items():
            yield f".{tone}-box{{fill:{colours.fill};stroke:{colours.stroke}}}"
            yield f".{tone}-line{{fill:none;stroke:{colours.stroke}}}"
            yield f".{tone}-text,.{tone}-tip{{fill:{colours.stroke}}}"


LIGHT = Scheme(
    sheet=Colours("#eef2f7", "#cbd5e1"),
    frame="#ffffff",
    band="#dbe3ed",
    ink="#0f172a",
    soft="#334155",
    faint="#475569",
    tones={
        "ask": Colours("#eff6ff", "#1d4ed8"),
        "report": Colours("#f0fdf4", "#166534"),
        "state": Colours("#fefce8", "#854d0e"),
        "record": Colours("#faf5ff", "#7e22ce"),
        "fault": Colours("#fef2f2", "#b91c1c"),
        "plain": Colours("#f1f5f9", "#56657a"),
    },
)
DARK = Scheme(
    sheet=Colours("#0b1220", "#334155"),
    frame="#141e35",
    band="#26334a",
    ink="#f1f5f9",
    soft="#cbd5e1",
    faint="#a3b1c6",
    tones={
        "ask": Colours("#172554", "#93c5fd"),
        "report": Colours("#052e1a", "#4ade80"),
        "state": Colours("#2e2308", "#facc15"),
        "record": Colours("#2e1065", "#d8b4fe"),
        "fault": Colours("#3f1212", "#fca5a5"),
        "plain": Colours("#1e293b", "#94a3b8"),
    },
)


def style() -> str:
    """The style sheet of every picture."""
    dark = "\n".join(f"  {rule}" for rule in DARK.rules())
    light = "\n".join(LIGHT.rules())
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"

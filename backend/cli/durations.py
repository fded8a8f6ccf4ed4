"""Lengths of time as typed: 30m, 90s, 2h, 1h30m."""

from __future__ import annotations

import re

import typer

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
"""Seconds of each unit, the largest first, as they are written one after the other."""
_FORM = re.compile("".join(rf"(?:(?P<{unit}>\d{{1,9}}){unit})?" for unit in _UNITS), re.ASCII)
_LONGEST = 366 * _UNITS["d"]


def parse_duration(option: str, text: str) -> float:
    """Read a length of time of at least a second, in seconds; `option` is named in errors.

    Raises typer.BadParameter for what is none.
    """
    compact = "".join(text.split()).lower()
    match = _FORM.fullmatch(compact)
    if not compact or match is None:
        raise _refusal(option, f"{text!r} is not a length of time; {_mend(compact)}")
    counts = match.groupdict(default="0")
    seconds = sum(int(counts[unit]) * length for unit, length in _UNITS.items())
    if not 1 <= seconds <= _LONGEST:
        raise _refusal(option, f"{text!r} is out of range; write 1s to 366d, for example 30m.")
    return float(seconds)


def _mend(compact: str) -> str:
    """What to write instead."""
    if compact.isascii() and compact.isdecimal():
        number = compact.lstrip("0") or "0"
        return f"it has no unit: write {number}m for minutes, {number}s for seconds."
    return "write whole numbers with d, h, m or s, largest first, for example 30m, 90s or 1h30m."


def _refusal(option: str, problem: str) -> typer.BadParameter:
    return typer.BadParameter(problem, param_hint=f"'{option}'")

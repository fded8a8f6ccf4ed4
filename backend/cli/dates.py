"""Dates as typed: whole UTC days, the last one included."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ktrdr.marketdata.v1.market_data_service_pb2 import ReadBarsRequest, StartDataLoadRequest
    from ktrdr.training.v1.training_service_pb2 import StartTrainingRequest


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open range of time, [start, end), in UTC; None is open."""

    start: datetime | None = None
    end: datetime | None = None

    def put_into(
        self, request: StartTrainingRequest | StartDataLoadRequest | ReadBarsRequest
    ) -> None:
        """Set what is not open in a request."""
        if self.start:
            request.start_time.FromDatetime(self.start)
        if self.end:
            request.end_time.FromDatetime(self.end)


def parse_period(start_date: str | None, end_date: str | None) -> Period:
    """Read --start-date and --end-date; the end date is included.

    Raises typer.BadParameter for a date that is none and for dates in the wrong order.
    """
    first = _parse_day("--start-date", start_date)
    last = _parse_day("--end-date", end_date)
    if first and last and last < first:
        raise typer.BadParameter(
            f"{last} is before --start-date {first}; exchange the two.", param_hint="'--end-date'"
        )
    return Period(
        start=_midnight(first) if first else None,
        end=_midnight(last + timedelta(days=1)) if last else None,
    )


def _parse_day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        # strptime alone would take "24-1-5" for the year 24.
        day = date.fromisoformat(text) if len(text) == len("YYYY-MM-DD") else None
    except ValueError:
        day = None
    if day is None or day == date.max:
        raise typer.BadParameter(
            f"{text!r} is not a day; write it as YYYY-MM-DD, for example 2024-01-31.",
            param_hint=f"'{option}'",
        )
    return day


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)

"""The trace of a command, if the environment asks for one; nothing is imported for it else."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from backend.cli.failures import CommandError, ExitCode

if TYPE_CHECKING:
    from shared.monitoring.tracing import Tracing

EXPORTER = "OTEL_TRACES_EXPORTER"


@cache
def tracing() -> Tracing | None:
    """What this command is traced with; None if nobody wants its trace. Raises CommandError."""
    exporter = os.environ.get(EXPORTER, "none")
    if exporter in {"", "none"}:
        return None
    if exporter not in {"otlp", "console"}:
        raise CommandError(
            f"{EXPORTER} must be none, otlp or console (got {exporter!r}).",
            exit_code=ExitCode.USAGE,
        )
    try:
        from shared.monitoring.tracing import Tracing, exporter_of

        return Tracing("ktrdr", exporter_of(exporter))
    except ImportError as error:
        raise CommandError(
            f"{EXPORTER}: tracing needs OpenTelemetry, which this environment lacks; install "
            "ktrdr[otel].",
            exit_code=ExitCode.USAGE,
        ) from error

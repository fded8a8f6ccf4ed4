"""One trace from the command through the backend to the host, as real processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.collector import CollectedSpan, Collector, collecting
from tests.support.processes import KtrdrProcess
from tests.support.programs import ROOT, SMALL, Programs

pytestmark = pytest.mark.slow
OPERATIONS = "ktrdr.operations.v1.OperationsService"
START = "ktrdr.training.v1.TrainingService/StartTraining"


@dataclass(frozen=True, slots=True)
class Traced:
    """What two processes and two commands have told a collector, once they have ended."""

    spans: list[CollectedSpan]
    output: str

    def trace(self, method: str) -> list[CollectedSpan]:
        """The spans of the one trace in which a command called a method."""
        (call,) = (
            span for span in self.spans if span.service == "ktrdr" and span.name.endswith(method)
        )
        return [span for span in self.spans if span.trace_id == call.trace_id]


def command(collector: Collector, *arguments: str) -> str:
    done = subprocess.run(
        [*Programs.command("ktrdr"), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **traces_to(collector)},
        check=False,
        timeout=90,
    )
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def traces_to(collector: Collector) -> dict[str, str]:
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    home: Path = tmp_path_factory.mktemp("traced")
    with collecting() as collector:
        with ExitStack() as stack:
            settings = traces_to(collector)
            host = stack.enter_context(
                KtrdrProcess("training_host", home / "host", crash=None, **settings)
            )
            backend = stack.enter_context(
                KtrdrProcess(
                    "backend",
                    home / "backend",
                    crash=None,
                    KTRDR_TRAINING_MODE="host",
                    TRAINING_HOST_SERVICE_URL=host.address,
                    OPERATIONS_CACHE_TTL="0",
                    **settings,
                )
            )
            at = ("--backend", backend.address)
            started = command(
                collector, "models", "train", "--strategy", str(SMALL), "--detach", *at
            )
            (operation_id,) = {w for w in started.split() if w.startswith("op_training_")}
            output = command(collector, "operations", "get", operation_id, *at)
            command(collector, "operations", "get", "nobodys", *at)
        yield Traced(collector.spans, output)


def test_a_start_is_one_trace_from_the_command_to_the_host(traced: Traced) -> None:
    trace = traced.trace("/StartTraining")
    assert {"ktrdr", "ktrdr-backend", "ktrdr-training_host"} == {span.service for span in trace}
    assert ["ktrdr", "ktrdr-backend", "ktrdr-backend", "ktrdr-training_host"] == sorted(
        span.service for span in trace if span.name == START
    )


def test_each_span_but_the_commands_has_its_parent_in_the_trace(traced: Traced) -> None:
    trace = traced.trace("/StartTraining")
    known = {span.span_id for span in trace}
    (first,) = (span for span in trace if span.parent_id not in known)
    assert ("ktrdr", "ktrdr models", "") == (first.service, first.name, first.parent_id)


def test_a_served_call_is_a_child_of_the_call_that_was_made(traced: Traced) -> None:
    trace = {span.span_id: span for span in traced.trace("/StartTraining")}
    (served,) = (
        span
        for span in trace.values()
        if span.service == "ktrdr-training_host" and span.name == START
    )
    made = trace[served.parent_id]
    assert ("ktrdr-backend", START, 0) == (made.service, made.name, made.code)


def test_a_call_that_fails_has_its_status(traced: Traced) -> None:
    failed = [span for span in traced.spans if span.code == 5]
    assert {(f"{OPERATIONS}/GetOperation", "ktrdr", True)} <= {
        (span.name, span.service, span.is_error) for span in failed
    }
    assert {False} == {span.is_error for span in failed if span.service == "ktrdr-backend"}

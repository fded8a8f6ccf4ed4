"""Looks and works for the tests of the soak."""

from __future__ import annotations

from dataclasses import replace

from tests.soak.looks import Entry, Look
from tests.soak.schedule import ALONE, FRONT, Kind, Work

TRAINING = Work("0001", FRONT, Kind.TRAINING, epochs=3)
LOAD = Work("0002", ALONE, Kind.LOAD, symbols=("IBM", "GOOG"))
RUNNING = Look(
    operation_id=TRAINING.operation_id,
    status="RUNNING",
    percentage=40.0,
    metrics_count=1,
    create_time=1,
    start_time=2,
    end_time=0,
    outcome="",
    digest="",
    age=0.5,
    source="REMOTE",
    refresh_error="",
    host_operation_id="host_training_op_training_0001",
)
COMPLETED = replace(
    RUNNING,
    status="COMPLETED",
    percentage=100.0,
    metrics_count=3,
    end_time=9,
    outcome="ktrdr.training.v1.TrainingResult",
    digest="d",
    age=0.0,
    source="RECORD",
)
CUT_OFF = replace(COMPLETED, status="FAILED", percentage=40.0, outcome="PROCESS_RESTARTED")


def entries(*steps: int) -> list[Entry]:
    """Metrics of these steps."""
    return [Entry(step, f"figures of {step}") for step in steps]

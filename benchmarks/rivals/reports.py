"""Where else a worker could leave an epoch's figures: Prometheus, MLflow, Celery's results.

Each is given six figures as its users give them. MLflow writes to its file store,
Celery to the SQLite database of its result backend, as durably as they do by
themselves; Prometheus keeps them in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

Figures = Mapping[str, float]
Report = Callable[[], object]


@contextmanager
def _prometheus(_folder: Path, figures: Figures) -> Iterator[Report]:
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    gauges = [(Gauge(name, name, registry=registry), value) for name, value in figures.items()]

    def report() -> None:
        for gauge, value in gauges:
            gauge.set(value)

    yield report


@contextmanager
def _mlflow(folder: Path, figures: Figures) -> Iterator[Report]:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # it would rather have a database by now
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.tracking import MlflowClient

    client: Any = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    run = client.create_run(client.create_experiment("benchmark")).info.run_id
    steps = count()

    def report() -> None:
        step = next(steps)
        for name, value in figures.items():
            client.log_metric(run, name, value, step=step)

    yield report


@contextmanager
def _celery(folder: Path, figures: Figures) -> Iterator[Report]:
    from celery import Celery

    app: Any = Celery("benchmark", broker="memory://", backend=f"db+sqlite:///{folder}/celery.db")
    steps = count()

    def report() -> None:
        # What Task.update_state does.
        app.backend.store_result("task", {"epoch": next(steps), **figures}, "PROGRESS")

    yield report
    app.close()


RIVALS: Mapping[str, Callable[[Path, Figures], AbstractContextManager[Report]]] = {
    "6 x prometheus Gauge.set": _prometheus,
    "6 x MLflow log_metric": _mlflow,
    "Celery update_state": _celery,
}

"""Prometheus itself, scraping live processes with the configuration that the project ships."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml

from tests.support.dashboard import queries
from tests.support.eventually import eventually
from tests.support.processes import KtrdrProcess
from tests.support.programs import ROOT
from tests.support.scraping import url_in

CONFIG = ROOT / "monitoring" / "prometheus.yml"
INSTALL = "install Debian's package prometheus, or put prometheus and promtool on PATH"
pytestmark = pytest.mark.slow


def program(name: str) -> str:
    """The path of one of Prometheus's programs; skips where it is missing, but not in CI."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing: {INSTALL}")
        pytest.skip(f"{name} is missing: {INSTALL}")
    return path


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus that scrapes a backend."""

    port: int
    backend: KtrdrProcess

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now; fails if Prometheus does not understand it."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?query={quote(expression)}"
        with urlopen(url, timeout=5) as answer:  # http, as said above
            document = json.load(answer)
        assert "success" == document["status"], document
        series: list[dict[str, Any]] = document["data"]["result"]
        return series

    def value(self, expression: str) -> float | None:
        """The one value of an expression; None if there is none, or nobody answers yet."""
        with suppress(URLError, ConnectionError):
            series = self.query(expression)
            return float(series[0]["value"][1]) if series else None
        return None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def configured(target: str, folder: Path) -> Path:
    """The project's configuration, with other targets and in a hurry."""
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    config["global"]["scrape_interval"] = "1s"
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    return file


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    binary, home, port = program("prometheus"), tmp_path_factory.mktemp("prometheus"), free_port()
    with ExitStack() as stack:
        backend = stack.enter_context(
            KtrdrProcess("backend", home / "backend", KTRDR_METRICS_PORT="0")
        )
        target = url_in(backend.log.read_text()).removeprefix("http://").removesuffix("/metrics")
        log = stack.enter_context((home / "log").open("w"))
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={configured(target, home)}",
                f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        running = Prometheus(port, backend)
        eventually(lambda: running.value('up{job="ktrdr"}') == 1, within=60)
        yield running


def test_the_configuration_is_one_that_prometheus_takes() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "config", str(CONFIG)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr


def test_what_happens_in_a_process_arrives_in_prometheus(prometheus: Prometheus) -> None:
    loaded = prometheus.backend.start_load("prometheus", ["IBM"])
    prometheus.backend.ended(loaded.operation_id)
    ended = 'ktrdr_operations_ended_total{type="DATA_LOADING",status="COMPLETED"}'
    eventually(lambda: prometheus.value(ended) == 1, within=20)
    assert 0 == prometheus.value('sum(ktrdr_operations_active{type="DATA_LOADING"})')
    counted = 'ktrdr_rpc_calls_total{method=~".*/StartDataLoad",code="OK"}'
    assert 1 == prometheus.value(counted)


@pytest.mark.parametrize("title", sorted({title for title, _ in queries()}))
def test_prometheus_understands_each_query_of_the_dashboard(
    prometheus: Prometheus, title: str
) -> None:
    for panel, query in queries():
        if panel == title:
            prometheus.query(query)


def test_the_dashboard_shows_a_process_that_does_something(prometheus: Prometheus) -> None:
    """Only what takes hosts, IB, refusals or failures stays empty."""
    loaded = prometheus.backend.start_load("dashboard", ["IBM"])
    prometheus.backend.look(loaded.operation_id)
    prometheus.backend.ended(loaded.operation_id)

    def empty() -> set[str]:
        shown = {title for title, query in queries() if prometheus.query(query)}
        return {title for title, _ in queries()} - shown

    eventually(lambda: empty() <= {"Calls turned away"}, within=30)

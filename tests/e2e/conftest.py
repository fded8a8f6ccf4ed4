"""A real backend process, and the programs its users run against it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from backend.demo import running_backend
from tests.support.programs import Programs

OTHER_SETTINGS = ("OPERATIONS_CACHE_TTL", "OTEL_TRACES_EXPORTER", "TRAINING_HOST_SERVICE_URL")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    with running_backend(tmp_path_factory.mktemp("home")) as address:
        yield Programs(address)


@pytest.fixture(autouse=True)
def environment_of_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests must not reach the programs under test."""
    for name in list(os.environ):
        if name.startswith("KTRDR_") or name in OTHER_SETTINGS:
            monkeypatch.delenv(name)

"""What tests anywhere may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import PostgresServer, require_postgres

# On a machine that others use as well, an example that takes long says nothing.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this run's own; whoever stops or freezes it puts it right again."""
    server = require_postgres()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files and folders that were synced to the disk, in that order, by their names then."""
    paths: list[Path] = []
    sync = os.fsync

    def note(opened: int) -> None:
        paths.append(Path(f"/proc/self/fd/{opened}").readlink())
        sync(opened)

    monkeypatch.setattr(os, "fsync", note)
    return paths

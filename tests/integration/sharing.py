"""Backends whose records are in one database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from backend.settings import BackendSettings
from shared.operations.database import open_store
from tests.integration.running import RunningBackend, running_backend


@contextmanager
def on(url: str, home: Path, **fields: Any) -> Iterator[RunningBackend]:
    """Serve a backend whose records are in the database."""
    settings = BackendSettings(home=home, state_url=SecretStr(url))
    with (
        closing(open_store(settings, "backend")) as store,
        running_backend(home, store=store, **fields) as running,
    ):
        yield running

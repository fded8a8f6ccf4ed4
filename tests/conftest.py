"""What tests anywhere may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresServer, require_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this run's own; whoever stops or freezes it puts it right again."""
    server = require_postgres()
    try:
        yield server
    finally:
        server.close()

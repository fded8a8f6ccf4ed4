"""Migration: brings a database to the revision that this ktrdr writes.

Safe when several processes open one database at once: of them one migrates, and
the others wait for it. A database that a newer ktrdr has written is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, Engine

from shared.operations.sql_connections import BEGIN

REVISIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6B74726472  # ktrdr, in ASCII: what PostgreSQL's advisory lock is known by
_VERSION_TABLE = "ktrdr_revision"
"""Where Alembic notes the revision; a name of our own, should a database be shared."""
_PATIENCE = 60
"""Seconds for another process's migration, or for one's own."""


class NewerDatabaseError(Exception):
    """A newer ktrdr has written the database; the text is its revision."""


class UnfitDatabaseError(Exception):
    """A database that cannot keep records; the text says why and what to do."""


def migrate(engine: Engine, revisions: Path = REVISIONS) -> None:
    """Bring a database up to the newest revision there is; nothing is done if it is.

    Raises NewerDatabaseError, UnfitDatabaseError or what SQLAlchemy raises; then
    the database holds what it did, but SQLite's write-ahead log may be on.
    """
    scripts = ScriptDirectory(str(revisions), version_locations=[str(revisions)])
    with engine.connect() as connection:
        if not _steps_ahead(connection, scripts):
            return
        _PREPARE[engine.dialect.name](connection)
        connection.exec_driver_sql(BEGIN[engine.dialect.name])
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        _run(connection, scripts)
        connection.exec_driver_sql("COMMIT")
        connection.invalidate()  # it was made too patient for anything else


def _prepare_sqlite(connection: Connection) -> None:
    """Turn the write-ahead log on; it stays on."""
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {_PATIENCE * 1000}")
    connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def _prepare_postgres(connection: Connection) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise UnfitDatabaseError(
            f"is encoded in {encoding}. Create one with ENCODING 'UTF8' TEMPLATE template0"
        )
    driver: Any = connection.connection.driver_connection
    driver.silence = _PATIENCE
    for name in ("lock_timeout", "statement_timeout"):
        connection.exec_driver_sql(f"SET {name} = '{_PATIENCE}s'")


_PREPARE = {"sqlite": _prepare_sqlite, "postgresql": _prepare_postgres}


def migration_context(connection: Connection, **opts: Any) -> MigrationContext:
    """What Alembic knows of a database; `opts` are its own."""
    return MigrationContext.configure(connection, opts={"version_table": _VERSION_TABLE, **opts})


def _steps_ahead(connection: Connection, scripts: ScriptDirectory) -> bool:
    return bool(_steps(scripts, migration_context(connection).get_current_heads()))


def _run(connection: Connection, scripts: ScriptDirectory) -> None:
    """Carry out what is missing, as another process has left it meanwhile."""

    def missing(heads: tuple[str, ...], _context: MigrationContext) -> list[MigrationStep]:
        return _steps(scripts, heads)

    context = migration_context(connection, fn=missing)
    with Operations.context(context):
        context.run_migrations()


def _steps(scripts: ScriptDirectory, heads: tuple[str, ...]) -> list[MigrationStep]:
    """The revisions after the one a database has, oldest first."""
    known: dict[str, Script] = {script.revision: script for script in scripts.walk_revisions()}
    unknown = [head for head in heads if head not in known]
    if unknown:
        raise NewerDatabaseError(", ".join(unknown))
    missing = scripts.iterate_revisions("head", heads[0] if heads else "base")
    return [
        MigrationStep.upgrade_from_script(scripts.revision_map, known[script.revision])
        for script in reversed(list(missing))
    ]

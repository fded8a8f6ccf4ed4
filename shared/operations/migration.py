"""Migration: brings a database to the revision that this ktrdr writes.

Safe when several processes open one database at once: of them one migrates, and
the others wait for it. A database that a newer ktrdr has written is refused.
"""

from __future__ import annotations

from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, Engine

REVISIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6B74726472  # ktrdr, in ASCII: what PostgreSQL's advisory lock is known by
_BEGIN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "BEGIN"}


class NewerDatabaseError(Exception):
    """A newer ktrdr has written the database; the text is its revision."""


def migrate(engine: Engine, revisions: Path = REVISIONS) -> None:
    """Bring a database up to the newest revision there is; nothing is done if it is.

    Raises NewerDatabaseError, or what the database raises; then it is as before.
    """
    scripts = ScriptDirectory(str(revisions), version_locations=[str(revisions)])
    with engine.connect() as connection:
        if not _steps_ahead(connection, scripts):
            return
        connection.exec_driver_sql(_BEGIN[engine.dialect.name])
        if engine.dialect.name == "postgresql":
            # Another process may be at it, for longer than a statement should take.
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        _run(connection, scripts)
        connection.exec_driver_sql("COMMIT")


def _steps_ahead(connection: Connection, scripts: ScriptDirectory) -> bool:
    return bool(_steps(scripts, MigrationContext.configure(connection).get_current_heads()))


def _run(connection: Connection, scripts: ScriptDirectory) -> None:
    """Carry out what is missing, as another process has left it meanwhile."""

    def missing(heads: tuple[str, ...], _context: MigrationContext) -> list[MigrationStep]:
        return _steps(scripts, heads)

    context = MigrationContext.configure(connection, opts={"fn": missing})
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

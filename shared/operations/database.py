"""The database of a process: the one its settings name, opened and brought up to date."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.clock import Clock
from shared.extras import require_postgres
from shared.operations.database_faults import fault_of, name_of
from shared.operations.migration import NewerDatabaseError, UnfitDatabaseError, migrate
from shared.operations.sql_store import SqlOperationStore
from shared.operations.sqlite_database import sqlite_engine
from shared.settings import ProcessSettings, SettingsError, usable_folder

_HOME, _URL = "KTRDR_HOME", "KTRDR_STATE_URL"


def open_store(
    settings: ProcessSettings, service: str, clock: Clock | None = None
) -> SqlOperationStore:
    """Open the store of a process's records, where `service` names the kind of process.

    Raises SettingsError if its database cannot be used, naming what to mend.
    """
    return SqlOperationStore(open_database(settings, service), service, clock)


def open_database(settings: ProcessSettings, service: str) -> Engine:
    """Open the database that the settings name and bring it up to date; SettingsError as above."""
    if settings.state_url is None:
        path, variable = settings.state_dir / f"{service}.db", _HOME
        return _opened(_sqlite(path, settings.state_connections, variable), variable)
    url = settings.state_url.get_secret_value()
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///")).expanduser()
        return _opened(_sqlite(path, settings.state_connections, _URL), _URL)
    return _opened(_postgres(url, settings.state_connections, service), _URL)


def _sqlite(path: Path, connections: int, variable: str) -> Engine:
    usable_folder(path.parent, variable)
    try:
        path.touch()  # an empty file is an empty database
    except OSError as error:
        raise SettingsError(
            f"{variable}: {path} cannot be written to ({error.strerror}); name a file that can"
        ) from error
    return sqlite_engine(path, connections)


def _postgres(url: str, connections: int, service: str) -> Engine:
    require_postgres(_URL)
    from shared.operations.postgres_database import UnusableUrlError, postgres_engine

    try:
        return postgres_engine(url, connections, f"ktrdr {service}")
    except UnusableUrlError as error:
        raise SettingsError(
            f"{_URL}: must be as in postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with what is "
            "special in user and password as %XX"
        ) from error


def _opened(engine: Engine, variable: str) -> Engine:
    """Migrate and return it, or close it and raise SettingsError."""
    name = name_of(engine)
    try:
        migrate(engine)
    except NewerDatabaseError as error:
        mend = "Install that ktrdr, or name another database"
        problem = f"{name} was written by a newer ktrdr (its revision is {error}). {mend}"
    except UnfitDatabaseError as error:
        problem = f"{name} {error}"
    except SQLAlchemyError as error:
        problem = fault_of(error, name).sentence
    else:
        return engine
    engine.dispose()
    raise SettingsError(f"{variable}: {problem}")

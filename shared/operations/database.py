"""The database of a process: the one its settings name, opened and brought up to date."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.operations.migration import migrate
from shared.operations.sql_store import SqlOperationStore
from shared.operations.sqlite_database import sqlite_engine
from shared.settings import ProcessSettings, usable_folder


def open_store(settings: ProcessSettings, service: str) -> SqlOperationStore:
    """Open the store of a process's records; `service` names its kind."""
    return SqlOperationStore(open_database(settings, service), service)


def open_database(settings: ProcessSettings, service: str) -> Engine:
    """Open the database that the settings name; raises SettingsError naming what to mend."""
    folder = usable_folder(settings.state_dir, "KTRDR_HOME")
    engine = sqlite_engine(folder / f"{service}.db", 8)
    migrate(engine)
    return engine

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.operations.database import open_database, open_store
from shared.operations.model import OperationStatus
from shared.operations.store import OperationFilter
from shared.settings import ProcessSettings, SettingsError
from tests.support.false_hosts import says_nothing
from tests.support.postgres import PASSWORD, PostgresServer
from tests.unit.operations.fakes import metric, record, steps

S = OperationStatus


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("KTRDR_"):
            monkeypatch.delenv(name)


def settings(home: Path, url: str | None = None) -> ProcessSettings:
    return ProcessSettings(home=home, state_url=None if url is None else SecretStr(url))


def complaint(home: Path, url: str | None = None) -> str:
    with pytest.raises(SettingsError) as raised:
        open_database(settings(home, url), "backend")
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


def works(home: Path, url: str | None = None) -> None:
    store = open_store(settings(home, url), "backend")
    store.create(record("op"))
    store.finish(record("op", status=S.COMPLETED), [metric(1), metric(2)])
    assert record("op", status=S.COMPLETED) == store.get("op")
    assert [1, 2] == steps(store.metrics("op", 0, 10))
    assert 1 == store.count(OperationFilter())
    store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from pydantic import SecretStr
from shared.operations.database import open_store
from shared.operations.model import OperationStatus
from shared.settings import ProcessSettings
from tests.unit.operations.fakes import LongLog, record
settings = ProcessSettings(home=Path("/nowhere"), state_url=SecretStr(sys.argv[1]))
store = open_store(settings, "backend")
store.save(record("op", status=OperationStatus.RUNNING), LongLog(10, lambda: None))
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
store.finish(record("op", status=OperationStatus.COMPLETED), LongLog(20_000, die))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_by_half(
    tmp_path: Path, url: str
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, url], check=False)
    assert -signal.SIGKILL == done.returncode

    store = open_store(settings(tmp_path, url), "backend")
    assert record("op", status=S.RUNNING) == store.get("op")
    assert list(range(1, 11)) == steps(store.metrics("op", 0, 100))
    log = [metric(step) for step in range(11, 31)]
    store.finish(record("op", status=S.COMPLETED), log, 10)
    assert list(range(1, 31)) == steps(store.metrics("op", 0, 100))
    store.close()


def test_without_a_url_each_service_has_a_file_below_its_home(tmp_path: Path) -> None:
    works(tmp_path)

    assert (tmp_path / "state" / "backend.db").is_file()
    assert not (tmp_path / "state" / "ib_host.db").exists()


def test_a_url_names_a_file(tmp_path: Path) -> None:
    works(tmp_path, f"sqlite:///{tmp_path}/elsewhere/records.db")

    assert ["elsewhere"] == [each.name for each in tmp_path.iterdir()]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_names_a_database_of_a_server(
    tmp_path: Path, postgres: PostgresServer, scheme: str
) -> None:
    works(tmp_path, postgres.new_database().replace("postgresql", scheme))

    assert [] == list(tmp_path.iterdir())


def test_a_local_socket_does_as_well(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    words = f"user=ktrdr&password={PASSWORD}&port={postgres.port}&host={postgres.folder}"

    works(tmp_path, f"postgresql:///{name}?{words.replace(' ', '%20')}")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state" / "backend.db"
    path.parent.mkdir()
    path.write_text("My dear records,\n" * 1000, encoding="utf-8")

    assert (
        f"KTRDR_HOME: {path} is damaged. Restore a copy, or move it away to begin with an empty one"
    ) == complaint(tmp_path)


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.db").mkdir()

    assert (
        f"KTRDR_STATE_URL: {tmp_path}/records.db cannot be opened. See that it is there and its "
        "folder too"
    ) == complaint(tmp_path, f"sqlite:///{tmp_path}/records.db")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert complaint(tmp_path, f"sqlite:///{tmp_path}/file/records.db").startswith(
        f"KTRDR_STATE_URL: {tmp_path}/file cannot be written to"
    )


def test_what_a_newer_ktrdr_has_written_is_refused(tmp_path: Path, url: str) -> None:
    engine = open_database(settings(tmp_path, url), "backend")
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE ktrdr_revision SET version_num = '9999'")
    engine.dispose()

    assert complaint(tmp_path, url).endswith(
        "was written by a newer ktrdr (its revision is 9999). Install that ktrdr, or name another "
        "database"
    )


def test_what_is_wrong_with_a_server_is_said_without_the_password(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    good = postgres.new_database()
    database = good.rpartition("/")[2]
    at = f"at 127.0.0.1:{postgres.port}"
    wrong = {
        good.replace("horse", "hearse"): f"{database} {at} refused the connection (password "
        'authentication failed for user "ktrdr"). Put right what it says',
        f"{good}x": f"{database}x {at} refused the connection (database "
        f'"{database}x" does not exist). Put right what it says',
        good.replace(str(postgres.port), "1"): f"{database} at 127.0.0.1:1 cannot be reached or "
        "does not answer (Connection refused). Bring it back",
    }

    for url, said in wrong.items():
        assert f"KTRDR_STATE_URL: the database {said}" == complaint(tmp_path, url)


def test_a_host_that_is_unknown_is_said(tmp_path: Path) -> None:
    said = complaint(tmp_path, "postgresql://u:correct%20horse@no-such-host.invalid/d")

    assert said.startswith(
        "KTRDR_STATE_URL: the database d at no-such-host.invalid cannot be reached"
    )


def test_a_server_that_says_nothing_stops_the_start(tmp_path: Path) -> None:
    with says_nothing() as address:
        said = complaint(tmp_path, f"postgresql://u:correct%20horse@{address}/d")

    assert f"KTRDR_STATE_URL: the database d at {address} cannot be reached" in said


def test_a_url_that_libpq_cannot_read_is_refused(tmp_path: Path) -> None:
    assert complaint(tmp_path, "postgresql://u:correct%ZZhorse@h/d") == (
        "KTRDR_STATE_URL: must be as in postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with what "
        "is special in user and password as %XX"
    )


def test_a_user_who_may_make_no_tables_is_told(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'correct horse'", url)
    postgres.execute("REVOKE CREATE ON SCHEMA public FROM public", url)

    assert complaint(tmp_path, url.replace("//ktrdr:", "//guest:")).endswith(
        "does not permit that to this user. Grant it"
    )


def test_without_psycopg_a_servers_database_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    assert complaint(tmp_path, "postgresql://u:correct%20horse@h/d") == (
        "KTRDR_STATE_URL: PostgreSQL needs psycopg, which this environment lacks; install "
        "ktrdr[postgres]"
    )
    works(tmp_path)

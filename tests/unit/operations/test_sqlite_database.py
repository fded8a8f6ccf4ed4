from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import event

from shared.operations.migration import migrate
from shared.operations.model import OperationStatus
from shared.operations.sql_store import SqlOperationStore
from shared.operations.sqlite_database import sqlite_engine
from shared.operations.store import OperationFilter
from shared.rpc.errors import StoreUnavailableError
from tests.support.stores import sqlite_database
from tests.unit.operations.fakes import Background, LongLog, in_threads, metric, record, steps

S = OperationStatus
ANY = OperationFilter()
LOG = [metric(step) for step in range(1, 20_001)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backend.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlOperationStore]:
    store = SqlOperationStore(sqlite_database(path, lock_timeout=0.2), "backend")
    yield store
    store.close()


def test_what_is_committed_survives_the_machine(path: Path) -> None:
    path.touch()
    engine = sqlite_engine(path, 2)
    migrate(engine)
    with engine.connect() as connection:
        modes = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    engine.dispose()

    assert ["wal", 2, 5000] == modes  # 2 is FULL


def test_a_full_disk_is_named_and_nothing_is_kept_by_half(
    store: SqlOperationStore, path: Path
) -> None:
    """A file that must not grow stands for the disk: SQLite says the same of both."""
    store.create(record("op"))
    full = True

    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {40 if full else 1_000_000}")

    event.listen(store._connections.engine, "checkout", limit)
    for _ in range(2):  # it is not held against the next that comes
        with pytest.raises(StoreUnavailableError) as raised:
            store.finish(record("op", status=S.COMPLETED), LOG)

    assert (
        f"Operation op could not be stored: the disk that holds {path} is full. Make room there."
    ) == raised.value.message
    assert record("op") == store.get("op")
    assert () == store.metrics("op", 0, 10)
    full = False
    assert record("op", status=S.COMPLETED) == store.finish(record("op", status=S.COMPLETED), LOG)
    assert [20_000] == steps(store.metrics("op", 19_999, 10))


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_a_disk_that_refuses_bytes_is_named_and_heals(store: SqlOperationStore, path: Path) -> None:
    """The kernel refuses to write beyond a size, in a process of its own."""
    store.create(record("op"))
    store.close()
    program = f"""
import resource, signal
from pathlib import Path
from shared.operations.sql_store import SqlOperationStore
from shared.operations.sqlite_database import sqlite_engine
from shared.rpc.errors import StoreUnavailableError
from shared.operations.model import OperationStatus
from tests.unit.operations.fakes import metric, record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SqlOperationStore(sqlite_engine(Path({str(path)!r}), 2), "backend")
ended = record("op", status=OperationStatus.COMPLETED)
log = [metric(step) for step in range(1, 20001)]
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
try:
    store.finish(ended, log)
except StoreUnavailableError as error:
    print(error.message)
print(store.get("op") == record("op"))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(store.finish(ended, log) == ended, len(store.metrics("op", 0, 30000)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert "" == done.stderr
    said, intact, healed = done.stdout.splitlines()
    assert "fails or is full. Mend it or make room." in said or "is full. Make room there." in said
    assert ("True", "True 20000") == (intact, healed)


def test_who_reads_is_not_kept_by_another_process_that_writes(
    store: SqlOperationStore, path: Path
) -> None:
    store.create(record("op"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = monotonic()
        for _ in range(20):  # the first waits, the others are told at once
            with pytest.raises(StoreUnavailableError) as raised:
                store.save(record("op", status=S.RUNNING))
        assert monotonic() - start < 2
        assert record("op") == store.get("op")
        other.execute("ROLLBACK")

    assert f"{path} is locked by another process. End what it does there" in raised.value.message


def test_a_lock_that_is_given_up_in_time_is_waited_for(path: Path) -> None:
    store = SqlOperationStore(sqlite_database(path, lock_timeout=10), "backend")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        write = Background(lambda: store.create(record("op")))
        other.execute("COMMIT")

        assert record("op") == write.result()
    store.close()


def test_long_writes_keep_nobody_from_reading(store: SqlOperationStore) -> None:
    """However many wait to write."""

    def meanwhile() -> None:
        writers.extend(Background(lambda: store.create(record("b"))) for _ in range(8))
        seen.append(store.get("a"))

    writers: list[Background] = []
    seen: list[object] = []
    store.create(record("a"))
    store.finish(record("a", status=S.COMPLETED), LongLog(12_000, meanwhile))

    assert [record("b")] * 8 == [writer.result() for writer in writers]
    assert [record("a")] == seen


def test_many_threads_write_and_read_at_once(path: Path) -> None:
    store = SqlOperationStore(sqlite_database(path), "backend")

    def work(thread: int) -> None:
        for turn in range(10):
            operation_id = f"op-{thread}-{turn}"
            store.create(record(operation_id))
            store.save(record(operation_id, status=S.RUNNING), [metric(1)])
            store.page(ANY, None, 5)
            store.finish(record(operation_id, status=S.COMPLETED), [metric(2)], 1)
            assert [1, 2] == steps(store.metrics(operation_id, 0, 5))

    assert [] == in_threads(12, work)
    assert 120 == store.count(OperationFilter(frozenset({S.COMPLETED})))
    store.close()


def test_a_file_that_may_not_be_written_is_named_and_read_on(
    store: SqlOperationStore, path: Path
) -> None:
    """SQLite says the same of a connection that only reads; a file's mode does not stop root."""
    store.create(record("op"))
    only_read = lambda connection, *_: connection.execute("PRAGMA query_only = ON")  # noqa: E731
    event.listen(store._connections.engine, "checkout", only_read)

    with pytest.raises(StoreUnavailableError) as raised:
        store.save(record("op", status=S.RUNNING))
    assert raised.value.message == (
        f"Operation op could not be stored: {path} cannot be written to. Make the file and its "
        "folder writable."
    )
    assert record("op") == store.get("op")


def test_a_file_that_was_removed_is_missed_and_not_made_anew(
    store: SqlOperationStore, path: Path
) -> None:
    store.create(record("op"))
    for each in path.parent.iterdir():
        each.rename(each.with_suffix(f"{each.suffix}.away"))

    with pytest.raises(StoreUnavailableError, match=r"cannot be opened\. See that it is there"):
        store.get("op")
    assert not path.exists()
    for each in path.parent.iterdir():
        each.rename(each.with_suffix(each.suffix.removesuffix(".away")))
    assert record("op") == store.get("op")


def test_a_copy_that_is_put_in_its_place_is_taken_up(store: SqlOperationStore, path: Path) -> None:
    store.create(record("old"))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(f"{path}.copy")) as copy:
        source.backup(copy)
    store.create(record("new"))
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        each.unlink()
    shutil.move(f"{path}.copy", path)

    assert (record("old"), None) == (store.get("old"), store.get("new"))
    assert record("new", status=S.FAILED) == store.finish(record("new", status=S.FAILED))


def test_a_damaged_page_is_named(store: SqlOperationStore, path: Path) -> None:
    store.finish(record("op", status=S.COMPLETED), LOG)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(40 * 4096)
        file.write(os.urandom(200 * 4096))

    with pytest.raises(StoreUnavailableError, match=r"is damaged\. Restore a copy, or move it"):
        store.metrics("op", 0, 20_000)


def test_a_name_may_hold_what_urls_do_not(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1? ü & %20.db"
    engine = sqlite_database(path)
    SqlOperationStore(engine, "backend").create(record("op"))
    engine.dispose()

    assert [path.name] == [each.name for each in tmp_path.iterdir()]

"""A real PostgreSQL for tests: in a folder of its own, to stop, freeze and start again.

One per test session, and per worker of it; `postgres` in tests/conftest.py lends
it. PostgreSQL does not run as root, so root runs it as another user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import randrange
from tempfile import mkdtemp
from typing import IO
from uuid import uuid4

import psycopg
import pytest

from tests.support.eventually import eventually

USER, PASSWORD = "ktrdr", "correct horse"
INSTALL = "install Debian's package postgresql, or put initdb and postgres on PATH"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "10min",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
    "client_min_messages": "error",
}


class PostgresServer:
    """One server with a database per test, at a port of its own that it keeps."""

    def __init__(self, **settings: str) -> None:
        """`settings` are the server's; without any it is quick and forgets in a power cut."""
        self._settings = {**_SETTINGS, **settings}
        self._programs = _programs()
        self._user = _other_user() if os.getuid() == 0 else None
        self.folder = Path(mkdtemp(prefix="ktrdr-postgres-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._make()
        self.start()

    @property
    def version(self) -> int:
        """Its major version."""
        return int((self._data / "PG_VERSION").read_text("ascii"))

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        """The URL of a database, as KTRDR_STATE_URL takes it."""
        quoted = password.replace(" ", "%20")
        return f"postgresql://{USER}:{quoted}@127.0.0.1:{self.port}/{database}"

    def variables(self) -> dict[str, str]:
        """What leads PostgreSQL's own programs to it, and libpq where a URL names no server."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": PASSWORD,
        }

    def new_database(self, options: str = "") -> str:
        """Create an empty database; return its URL."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def execute(self, statement: str, url: str = "") -> None:
        """Carry out a statement, in the database of a URL if that matters."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        """Start it, and return once it takes connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        command = ["postgres", f"-D{self._data}", f"-p{self.port}", f"-k{self.folder}"]
        log = (self.folder / "log").open("ab")
        with log:
            self._process = self._popen([*command, *options], log)
        eventually(self._answers, within=30)

    def stop(self) -> None:
        """End it at once, breaking every connection; what was committed stays."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(30) == 0
        self._process = None

    def restart(self) -> None:
        """End it and start it again: every connection made before is broken."""
        self.stop()
        self.start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have it stopped for the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it accept everything and answer nothing for the block."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)  # first: it makes no more of the others
        try:
            _signal(self._children(), signal.SIGSTOP)
            yield
        finally:
            _signal(self._children(), signal.SIGCONT)
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # nothing of it is to be kept
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
        shutil.rmtree(self.folder)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _make(self) -> None:
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        secret = self.folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        access = [f"-U{USER}", "--auth=scram-sha-256", f"--pwfile={secret}"]
        kind = ["--encoding=UTF8", "--no-locale", "--no-sync"]
        made = self._popen(["initdb", f"-D{self._data}", *access, *kind], subprocess.PIPE)
        said, _ = made.communicate(timeout=60)
        assert made.returncode == 0, said.decode()

    def _popen(self, command: list[str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
        program, *arguments = command
        user = self._user
        return subprocess.Popen(
            [str(self._programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
            start_new_session=True,  # Ctrl-C in a terminal is for the tests
        )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text("utf-8")
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _children(self) -> list[int]:
        """The processes of the server besides its own: one for each connection, and a few more."""
        assert self._process is not None
        listing = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        pairs = [tuple(map(int, line.split())) for line in listing.stdout.splitlines()]
        return [pid for pid, parent in pairs if parent == self._process.pid]


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process, number)


def require_postgres() -> PostgresServer:
    """Start a server; without PostgreSQL skip the test, or in CI fail it."""
    try:
        return PostgresServer()
    except FileNotFoundError as error:
        if os.environ.get("CI"):
            pytest.fail(f"There is no PostgreSQL: {error}", pytrace=False)
        pytest.skip(f"There is no PostgreSQL: {error}")


def _programs() -> Path:
    """The folder of PostgreSQL's programs, the newest if there are several."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(versions, key=lambda path: int(path.parts[4].split(".")[0]))
    if not found:
        raise FileNotFoundError(INSTALL)
    return found[-1].parent


def _other_user() -> str:
    """Who runs it in place of root."""
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    """A port below those that the system gives away, so that it is free after a restart as well.

    Those from 21 000 on are for the processes of tests/soak/fleet.py.
    """
    while True:
        port = randrange(15_000, 21_000)  # noqa: S311  # only two of one run must not meet
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def main() -> None:
    """Run one until standard input ends; for trying things out by hand."""
    server = PostgresServer()
    sys.stdout.write(f"{server.new_database()}\n")
    sys.stdout.flush()
    try:
        sys.stdin.read()
    finally:
        server.close()


if __name__ == "__main__":
    main()

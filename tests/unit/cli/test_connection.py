"""The command over TLS and with a token: what it needs, and what it says if that is missing."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from backend.cli.connection import security_of_environment
from backend.cli.failures import ExitCode
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import Owner
from shared.operations.service import OperationsService
from shared.operations.servicer import OperationsServicer, operations_service
from shared.rpc.errors import TokenNotSentError
from shared.rpc.security import OPEN, ServerSecurity
from shared.settings import ProcessSettings, load_settings
from tests.support.certificates import (
    PAST,
    READ,
    STRANGE,
    WRITE,
    Authority,
    served_with,
    token_file,
    tokens_file,
)
from tests.support.rpc import served
from tests.unit.cli.command_line import Outcome, Run


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tokens_file(tmp_path)


class Command:
    """Runs `ktrdr` with variables of its own."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self._run = run
        self._monkeypatch = monkeypatch

    def __call__(self, address: str, *arguments: str, **variables: object) -> Outcome:
        with self._monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(f"KTRDR_{name}", str(value))
            words = arguments or ("operations", "list")
            return self._run(*words, "--backend", address)


@pytest.fixture
def ktrdr(run: Run, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(run, monkeypatch)


@contextmanager
def serving(security: ServerSecurity = OPEN) -> Iterator[str]:
    """A server with an operations service that knows no operations; its address."""
    operations = OperationsService(MemoryOperationStore(), Owner("here", "now", ""))
    service = operations_service(OperationsServicer(operations))
    with served([service], security=security) as wire:
        yield wire.address


def assert_told(outcome: Outcome, code: ExitCode, *words: str) -> None:
    """One error, in a sentence, and nothing of whatever is below."""
    assert code == outcome.exit_code, outcome.stderr
    assert "" == outcome.stdout
    assert outcome.stderr.startswith("Error: ")
    assert outcome.stderr.count("\n") <= 2
    for word in words:
        assert word in outcome.complaint
    for noise in ("Traceback", "ipv4:", "SSL", "last error"):
        assert noise not in outcome.complaint


# ---------------------------------------------------------------------------- it works


def test_with_authority_certificate_and_token_every_command_works(
    ktrdr: Command, authority: Authority, tokens: Path, tmp_path: Path
) -> None:
    guard = served_with(authority.server, client_ca=authority.path, tokens=tokens)
    pair = authority.client
    with serving(guard) as address:
        tls = {"TLS_CA": authority.path, "TLS_CERT": pair.cert, "TLS_KEY": pair.key}
        assert 0 == ktrdr(address, "health", **tls).exit_code  # open to who has no token
        listed = ktrdr(address, **tls, TOKEN_FILE=token_file(tmp_path, READ))
        assert 0 == listed.exit_code, listed.stderr


def test_a_file_may_be_in_the_users_home(
    ktrdr: Command, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(served_with(tokens=tokens)) as address:
        name = token_file(tmp_path, READ).name
        assert 0 == ktrdr(address, TOKEN_FILE=f"~/{name}").exit_code


def test_an_empty_variable_is_none(ktrdr: Command) -> None:
    with serving() as address:
        empty = dict.fromkeys(("TLS_CA", "TLS_CERT", "TLS_KEY", "TOKEN_FILE", "INSECURE"), "")
        assert 0 == ktrdr(address, **empty).exit_code


# -------------------------------------------------------------------------- not let in


@pytest.mark.parametrize(("token", "reason"), [(None, "TOKEN_MISSING"), (STRANGE, "TOKEN_UNKNOWN")])
def test_without_a_token_that_is_known_it_says_where_one_belongs(
    ktrdr: Command, tokens: Path, tmp_path: Path, token: str | None, reason: str
) -> None:
    shown = {"TOKEN_FILE": token_file(tmp_path, token)} if token else {}
    with serving(served_with(tokens=tokens)) as address:
        assert_told(ktrdr(address, **shown), ExitCode.USAGE, "KTRDR_TOKEN_FILE", f"({reason})")


def test_with_a_token_to_read_it_says_what_it_lacks(
    ktrdr: Command, tokens: Path, tmp_path: Path
) -> None:
    with serving(served_with(tokens=tokens)) as address:
        shown = {"TOKEN_FILE": token_file(tmp_path, READ)}
        ended = ktrdr(address, "operations", "cancel", "op_1", **shown)
    assert_told(ended, ExitCode.USAGE, "needs a token with scope write", "(WRITE_SCOPE_NEEDED)")


def test_a_token_is_not_sent_in_the_open_to_another_machine(ktrdr: Command, tmp_path: Path) -> None:
    shown = {"TOKEN_FILE": token_file(tmp_path, WRITE)}
    ended = ktrdr("192.0.2.1:50051", **shown)
    assert_told(ended, ExitCode.USAGE, "not sent to 192.0.2.1:50051", "Set KTRDR_TLS_CA")
    assert WRITE not in ended.stderr


@pytest.mark.parametrize("value", ["maybe", "2", "no TLS"])
def test_what_is_neither_yes_nor_no_is_not_guessed(ktrdr: Command, value: str) -> None:
    ended = ktrdr("127.0.0.1:1", INSECURE=value)
    words = f"KTRDR_INSECURE: must be 1, true, yes or on, or 0, false, no or off (got {value!r})."
    assert_told(ended, ExitCode.USAGE, words)


@pytest.mark.parametrize("value", ["1", "TRUE", "yes", "On", "t", "Y", "0", "no", "OFF", "f", "N"])
def test_yes_and_no_are_written_as_for_the_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("KTRDR_TOKEN_FILE", str(token_file(tmp_path, WRITE)))
    monkeypatch.setenv("KTRDR_INSECURE", value)
    security = security_of_environment()
    shown = True
    try:
        security.metadata("192.0.2.1:50051")
    except TokenNotSentError:
        shown = False
    assert load_settings(ProcessSettings).insecure is shown


# ------------------------------------------------------------------------- not trusted


def test_a_server_without_tls(ktrdr: Command, authority: Authority) -> None:
    with serving() as address:
        ended = ktrdr(address, TLS_CA=authority.path)
        assert_told(
            ended, ExitCode.UNREACHABLE, address, "does not speak TLS", "KTRDR_TLS_CA unset"
        )


def test_a_server_with_tls_called_without(ktrdr: Command, authority: Authority) -> None:
    with serving(served_with(authority.server)) as address:
        words = "If it speaks TLS, set KTRDR_TLS_CA"
        assert_told(ktrdr(address), ExitCode.UNREACHABLE, address, words)
        assert_told(ktrdr(address, "health"), ExitCode.UNREACHABLE, address, words)


@contextmanager
def closing_at_once(*, reset: bool) -> Iterator[str]:
    """The published port of a container whose process does not listen yet.

    `reset`: what the caller has sent was not read before.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def close_each() -> None:
            with suppress(OSError):  # the listener is shut down
                while True:
                    with listener.accept()[0] as connection:
                        connection.recv(1)
                        if reset:
                            no_rest = struct.pack("ii", 1, 0)
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_rest)
                        else:
                            connection.recv(4096)

        closing = threading.Thread(target=close_each, name="closing-at-once")
        closing.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            closing.join()


@pytest.mark.parametrize("reset", [False, True])
def test_a_container_that_is_still_starting(ktrdr: Command, reset: bool) -> None:
    with closing_at_once(reset=reset) as address:
        words = "if it is a container's port, the process in it may not listen yet"
        assert_told(ktrdr(address), ExitCode.UNREACHABLE, address, words)


def test_a_certificate_of_an_authority_that_is_not_trusted(
    ktrdr: Command, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    with serving(served_with(authority.server)) as address:
        ended = ktrdr(address, TLS_CA=other.path)
        assert_told(ended, ExitCode.UNREACHABLE, "not from an authority in KTRDR_TLS_CA")


def test_a_certificate_of_another_name(ktrdr: Command, authority: Authority) -> None:
    with serving(served_with(authority.issue("example.org", file="named"))) as address:
        ended = ktrdr(address, TLS_CA=authority.path)
        assert_told(ended, ExitCode.UNREACHABLE, "for other names than the one in this address")


@pytest.mark.parametrize("shown", [False, True])
def test_a_server_that_wants_another_certificate_or_any(
    ktrdr: Command, authority: Authority, tmp_path: Path, shown: bool
) -> None:
    other = Authority(tmp_path / "other").client
    own = {"TLS_CERT": other.cert, "TLS_KEY": other.key} if shown else {}
    with serving(served_with(authority.server, client_ca=authority.path)) as address:
        ended = ktrdr(address, TLS_CA=authority.path, **own)
        assert_told(ended, ExitCode.UNREACHABLE, "If it asks for certificates, set KTRDR_TLS_CERT")


# --------------------------------------------------------------------------- bad files


def test_files_that_cannot_be_used_are_named_before_anything_is_sent(
    ktrdr: Command, authority: Authority, tmp_path: Path
) -> None:
    ca, pair = authority.path, authority.client
    old, missing = authority.issue("client", file="old", validity=PAST), tmp_path / "missing"
    whole = {"TLS_CA": ca, "TLS_CERT": pair.cert, "TLS_KEY": pair.key}
    for changes, words in (
        ({"TLS_CA": missing}, f"KTRDR_TLS_CA: {missing} cannot be read"),
        ({"TLS_CA": pair.key}, "KTRDR_TLS_CA: "),
        ({"TLS_CERT": missing}, f"KTRDR_TLS_CERT: {missing} cannot be read"),
        ({"TLS_KEY": missing}, f"KTRDR_TLS_KEY: {missing} cannot be read"),
        ({"TLS_KEY": ""}, "KTRDR_TLS_CERT and KTRDR_TLS_KEY belong together"),
        ({"TLS_KEY": authority.server.key}, "KTRDR_TLS_KEY: "),
        ({"TLS_CERT": old.cert, "TLS_KEY": old.key}, "has expired"),
        ({"TOKEN_FILE": missing}, "KTRDR_TOKEN_FILE: "),
    ):
        assert_told(ktrdr("127.0.0.1:1", **{**whole, **changes}), ExitCode.USAGE, words)

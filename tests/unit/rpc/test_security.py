from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from shared import reloading
from shared.rpc.channel import CHANNEL_OPTIONS, open_channel
from shared.rpc.errors import TokenNotSentError
from shared.rpc.security import PLAIN, ClientSecurity
from tests.support.certificates import Authority, Pair, called_with, served_with
from tests.support.eventually import eventually
from tests.support.rpc import TIMEOUT, Wire, code_of, probe, served


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other")


@contextmanager
def serving(pair: Pair, client_ca: Path | None = None) -> Iterator[Wire]:
    services = [probe({"Who": lambda _, context: b",".join(context.peer_identities() or ())})]
    with served(services, security=served_with(pair, client_ca=client_ca)) as wire:
        yield wire


def ask(address: str, security: ClientSecurity) -> str:
    """Connect anew and return the code of a call."""
    with open_channel(address, security) as channel:
        method: Any = channel.unary_unary("/test.v1.ProbeService/Who")
        return code_of(lambda: method(b"", timeout=TIMEOUT))


# ------------------------------------------------------------------------------- TLS


def test_who_trusts_the_authority_is_served_over_tls(authority: Authority) -> None:
    with serving(authority.server) as wire:
        assert "OK" == ask(wire.address, called_with(authority))


def test_a_client_that_is_not_asked_may_have_a_certificate(authority: Authority) -> None:
    with serving(authority.server) as wire:
        assert "OK" == ask(wire.address, called_with(authority, pair=authority.client))


def test_plaintext_is_not_served_beside_tls(authority: Authority) -> None:
    with serving(authority.server) as wire:
        assert "UNAVAILABLE" == ask(wire.address, PLAIN)


def test_who_trusts_another_authority_does_not_connect(
    authority: Authority, other: Authority
) -> None:
    with serving(authority.server) as wire:
        assert "UNAVAILABLE" == ask(wire.address, called_with(other))


def test_a_certificate_of_another_name_is_not_accepted(authority: Authority) -> None:
    with serving(authority.issue("example.org", file="named")) as wire:
        assert "UNAVAILABLE" == ask(wire.address, called_with(authority))


def test_with_a_client_authority_only_its_clients_connect(
    authority: Authority, other: Authority
) -> None:
    with serving(authority.server, other.path) as wire:
        trusted = called_with(authority, pair=other.client)
        assert "OK" == ask(wire.address, trusted)
        for refused in (called_with(authority), called_with(authority, pair=authority.client)):
            assert "UNAVAILABLE" == ask(wire.address, refused)


# -------------------------------------------------------------------- new certificates


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files whenever asked."""
    monkeypatch.setattr(reloading, "INTERVAL", 0.0)


@pytest.mark.usefixtures("at_once")
def test_new_connections_get_the_certificate_that_is_in_the_files_then(
    authority: Authority, other: Authority
) -> None:
    pair = authority.server
    with serving(pair) as wire, open_channel(wire.address, called_with(authority)) as old:
        method: Any = old.unary_unary("/test.v1.ProbeService/Who")
        method(b"", timeout=TIMEOUT)
        replaced = other.server
        pair.cert.write_bytes(replaced.cert.read_bytes())
        pair.key.write_bytes(replaced.key.read_bytes())

        assert "OK" == ask(wire.address, called_with(other))
        assert "UNAVAILABLE" == ask(wire.address, called_with(authority))
        method(b"", timeout=TIMEOUT)  # what is connected stays so


@pytest.mark.usefixtures("at_once")
def test_half_of_a_new_certificate_leaves_the_old_one_in_use(
    authority: Authority, other: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(authority.server) as wire:
        authority.server.cert.write_bytes(other.server.cert.read_bytes())
        assert "OK" == ask(wire.address, called_with(authority))
        authority.server.key.write_bytes(other.server.key.read_bytes())
        assert "OK" == ask(wire.address, called_with(other))
    told = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert 1 == len(told)
    assert "KTRDR_TLS_KEY: " in told[0]


@pytest.mark.usefixtures("at_once")
def test_whom_clients_must_be_known_to_may_change_as_well(
    authority: Authority, other: Authority
) -> None:
    pair = authority.client
    with serving(authority.server, authority.path) as wire:
        trusting = called_with(authority, pair=pair)
        assert "OK" == ask(wire.address, trusting)
        authority.path.write_bytes(other.path.read_bytes())
        assert "UNAVAILABLE" == ask(wire.address, trusting)


@pytest.mark.usefixtures("at_once")
def test_a_client_shows_the_certificate_that_is_in_its_files_when_it_connects(
    authority: Authority, other: Authority
) -> None:
    client = called_with(authority, pair=authority.client)
    with serving(authority.server, other.path) as wire:
        assert "UNAVAILABLE" == ask(wire.address, client)
        authority.client.cert.write_bytes(other.client.cert.read_bytes())
        authority.client.key.write_bytes(other.client.key.read_bytes())
        assert "OK" == ask(wire.address, client)


@pytest.mark.usefixtures("at_once")
def test_many_connections_while_certificates_change_all_get_one(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A handshake may take longer than the half second of our own channels: eight at a time,
    # beside certificates that are made. One that fails is told at once all the same.
    patient = tuple(option for option in CHANNEL_OPTIONS if "backoff" not in option[0])
    monkeypatch.setattr("shared.rpc.channel.CHANNEL_OPTIONS", patient)
    with serving(authority.server) as wire, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(ask, wire.address, called_with(authority)) for _ in range(100)]
        eventually(lambda: any(call.done() for call in calls))
        for _ in range(5):
            authority.issue()  # into the same files
        assert {"OK"} == {call.result() for call in calls}


# ------------------------------------------------------------------------------ tokens


def token() -> str:
    return "abcdefghijklmnop"


SENT = (("authorization", "Bearer abcdefghijklmnop"),)


def test_without_a_token_nothing_is_sent_anywhere() -> None:
    assert () == PLAIN.metadata("trainer:50052")


@pytest.mark.parametrize("target", ["127.0.0.1:50051", "localhost:1", "[::1]:1", "unix:/x"])
def test_on_this_machine_a_token_is_sent_in_the_open(target: str) -> None:
    assert SENT == ClientSecurity(token=token).metadata(target)


@pytest.mark.parametrize("target", ["trainer:50052", "10.0.0.1:1", "dns:///trainer:1"])
def test_to_another_machine_a_token_is_only_sent_over_tls_unless_told_so(target: str) -> None:
    with pytest.raises(TokenNotSentError) as caught:
        ClientSecurity(token=token).metadata(target)
    assert "KTRDR_TLS_CA" in caught.value.message
    assert token() not in caught.value.message
    assert SENT == ClientSecurity(token=token, insecure=True).metadata(target)
    encrypted = ClientSecurity(grpc.ssl_channel_credentials, token)
    assert SENT == encrypted.metadata(target)

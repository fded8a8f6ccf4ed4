"""A process that calls another over TLS and with a token, and what it says if that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from shared.rpc.errors import (
    HostDeniedError,
    HostNotConnectedError,
    KtrdrError,
    TokenNotSentError,
)
from shared.rpc.handshake import handshake_problem
from shared.rpc.host_channel import HostChannel
from shared.rpc.host_channels import HostChannels
from shared.rpc.security import PLAIN, ClientSecurity, ServerSecurity
from tests.support.certificates import (
    PAST,
    READ,
    STRANGE,
    WRITE,
    Authority,
    called_with,
    served_with,
    tokens_file,
)
from tests.support.rpc import PROBE, TIMEOUT, probe, served


class ProbeStub:
    """A stub as generated ones are, with raw bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        raw: Any = channel
        self.Ask = raw.unary_unary(f"/{PROBE}/Ask")
        self.Stream = raw.unary_stream(f"/{PROBE}/Stream")


PROBES = [probe({"Ask": lambda *_: b"answer"}, {"Stream": lambda *_: iter([b"a", b"b"])})]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tokens_file(tmp_path)


def answers(target: str, security: ClientSecurity) -> list[bytes]:
    """What a call, one that is waited for later, and a stream bring."""
    with closing(HostChannel(target, "me", security)) as channel:
        asked = channel.call(ProbeStub, "Ask", b"", TIMEOUT)
        later = channel.begin(ProbeStub, "Ask", b"", TIMEOUT).result()
        return [asked, later, *channel.stream(ProbeStub, "Stream", b"", TIMEOUT)]


def errors(target: str, security: ClientSecurity) -> Iterator[KtrdrError]:
    """What the same three raise instead."""
    with closing(HostChannel(target, "me", security)) as channel:
        for call in (
            lambda: channel.call(ProbeStub, "Ask", b"", TIMEOUT),
            lambda: channel.begin(ProbeStub, "Ask", b"", TIMEOUT).result(),
            lambda: list(channel.stream(ProbeStub, "Stream", b"", TIMEOUT)),
        ):
            with pytest.raises(KtrdrError) as caught:
                call()
            yield caught.value


def test_calls_go_over_tls_with_certificate_and_token(authority: Authority, tokens: Path) -> None:
    guarded = served_with(authority.server, client_ca=authority.path, tokens=tokens)
    with served(PROBES, security=guarded) as wire:
        security = called_with(authority, pair=authority.client, token=WRITE)
        assert [b"answer", b"answer", b"a", b"b"] == answers(wire.address, security)


def test_the_channels_of_a_process_are_all_secured_alike(
    authority: Authority, tokens: Path
) -> None:
    guarded = served_with(authority.server, tokens=tokens)
    security = called_with(authority, token=WRITE)
    with (
        served(PROBES, security=guarded) as wire,
        closing(HostChannels("me", security)) as channels,
    ):
        assert b"answer" == channels.to(wire.address).call(ProbeStub, "Ask", b"", TIMEOUT)


def test_a_token_goes_without_tls_to_this_machine(tokens: Path) -> None:
    with served(PROBES, security=served_with(tokens=tokens)) as wire:
        assert 4 == len(answers(wire.address, called_with(token=WRITE)))


@pytest.mark.parametrize(
    ("token", "reason"),
    [(None, "TOKEN_MISSING"), (STRANGE, "TOKEN_UNKNOWN"), (READ, "WRITE_SCOPE_NEEDED")],
)
def test_a_host_that_does_not_let_us_in_is_unreachable_with_the_reason(
    tokens: Path, token: str | None, reason: str
) -> None:
    with served(PROBES, security=served_with(tokens=tokens)) as wire:
        for error in errors(wire.address, called_with(token=token)):
            assert (HostDeniedError, "HOST_DENIED") == (type(error), error.reason)
            assert f"{wire.address} does not let this process in ({reason})" in error.message
            assert "Set KTRDR_TOKEN_FILE here" in error.message
            assert wire.address == error.metadata["target"]


def test_a_token_is_not_sent_in_the_open_to_another_machine() -> None:
    for error in errors("192.0.2.1:50052", called_with(token=WRITE)):
        assert (TokenNotSentError, "TOKEN_NOT_SENT") == (type(error), error.reason)
        assert WRITE not in error.message


# ------------------------------------------------------------------- failed handshakes


def assert_handshake(
    server: ServerSecurity, client: ClientSecurity, words: str, reason: str = "TLS_HANDSHAKE_FAILED"
) -> None:
    """All three say why; and that the host has certainly seen nothing, so another may be asked."""
    with served(PROBES, security=server) as wire:
        for error in errors(wire.address, client):
            assert (HostNotConnectedError, reason) == (type(error), error.reason)
            assert words in error.message
            assert wire.address in error.message


def test_a_host_without_tls(authority: Authority) -> None:
    assert_handshake(served_with(), called_with(authority), "it does not speak TLS. Set KTRDR_TLS_")


def test_a_host_with_tls_called_without(authority: Authority) -> None:
    words = "If it speaks TLS, set KTRDR_TLS_CA"
    assert_handshake(served_with(authority.server), PLAIN, words, "HOST_UNREACHABLE")


def test_a_certificate_of_an_authority_that_is_not_trusted(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    assert_handshake(
        served_with(authority.server), called_with(other), "not from an authority in KTRDR_TLS_CA"
    )


def test_a_certificate_of_another_name(authority: Authority) -> None:
    named = served_with(authority.issue("example.org", file="named"))
    assert_handshake(named, called_with(authority), "for other names than the one in this address")


def test_a_certificate_that_has_expired_since_the_start(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.rpc.certificates._check_time", lambda *_: None)
    expired = served_with(authority.issue(file="expired", validity=PAST))
    assert_handshake(expired, called_with(authority), "its certificate has expired. Renew it there")


@pytest.mark.parametrize("shown", [False, True])
def test_a_host_that_wants_another_certificate_or_any(
    authority: Authority, tmp_path: Path, shown: bool
) -> None:
    pair = Authority(tmp_path / "other").client if shown else None
    assert_handshake(
        served_with(authority.server, client_ca=authority.path),
        called_with(authority, pair=pair),
        "If it asks for certificates, set KTRDR_TLS_CERT and KTRDR_TLS_KEY",
    )


def test_of_what_is_no_handshake_nothing_is_said() -> None:
    for encrypted in (False, True):
        said = "failed to connect to all addresses; last error: UNKNOWN: Connection refused"
        assert "" == handshake_problem(said, encrypted=encrypted)
    assert "" == handshake_problem("WRONG_VERSION_NUMBER", encrypted=False)

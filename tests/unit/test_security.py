"""What a process makes of its settings about TLS and tokens, before it listens."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from shared.rpc.errors import CredentialsError, TokenNotSentError
from shared.security import client_security, server_security
from shared.settings import ProcessSettings, SettingsError
from tests.support.certificates import WRITE, Authority, settings_of, token_file, tokens_file

ANYWHERE = ("0.0.0.0:50051", "[::]:50051", "10.0.0.1:0", "trainer.example.org:50051")
HERE = ("127.0.0.1:50051", "[::1]:0", "localhost:50051")
VARIABLE = "KTRDR_BACKEND_ADDRESS"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def process(home: Path, **settings: Any) -> ProcessSettings:
    return ProcessSettings(home=home, **settings)


@pytest.mark.parametrize("address", HERE)
def test_on_this_machine_nothing_is_asked_for(tmp_path: Path, address: str) -> None:
    security = server_security(process(tmp_path), VARIABLE, address)
    assert (None, None, True) == (security.credentials, security.tokens, security.reflection)


@pytest.mark.parametrize("address", ANYWHERE)
@pytest.mark.parametrize("has", [(), ("tls_cert", "tls_key"), ("tokens_file",)])
def test_to_listen_to_other_machines_takes_tls_and_tokens(
    authority: Authority, tmp_path: Path, address: str, has: tuple[str, ...]
) -> None:
    whole = settings_of(authority, tokens_file(tmp_path))
    with pytest.raises(SettingsError) as caught:
        server_security(process(tmp_path, **{name: whole[name] for name in has}), VARIABLE, address)
    for words in (
        f"{VARIABLE}: {address} can be reached from other machines.",
        "Set KTRDR_TLS_CERT, KTRDR_TLS_KEY and KTRDR_TOKENS_FILE",
        "listen on 127.0.0.1",
        "KTRDR_INSECURE=1",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("address", ANYWHERE)
def test_with_both_it_listens(authority: Authority, tmp_path: Path, address: str) -> None:
    settings = process(tmp_path, **settings_of(authority, tokens_file(tmp_path), mutual=True))
    security = server_security(settings, VARIABLE, address)
    assert security.credentials is not None
    assert security.tokens is not None


def test_who_says_that_it_is_insecure_may_listen_and_is_warned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    security = server_security(process(tmp_path, insecure=True), VARIABLE, ANYWHERE[0])
    assert (None, None) == (security.credentials, security.tokens)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"KTRDR_INSECURE: whoever reaches {ANYWHERE[0]} is let in" in warning.message


def test_nobody_is_warned_where_there_is_no_reason(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = settings_of(authority, tokens_file(tmp_path))
    server_security(process(tmp_path, insecure=True), VARIABLE, HERE[0])
    server_security(process(tmp_path, insecure=True, **whole), VARIABLE, ANYWHERE[0])
    assert [] == caplog.records


def test_reflection_may_be_turned_off(tmp_path: Path) -> None:
    assert not server_security(process(tmp_path, reflection=False), VARIABLE, HERE[0]).reflection


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_client_ca", "tokens_file"])
def test_a_file_that_is_not_there_stops_the_start(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    whole = settings_of(authority, tokens_file(tmp_path), mutual=True)
    settings = process(tmp_path, **{**whole, name: tmp_path / "missing"})
    with pytest.raises(CredentialsError, match=f"^KTRDR_{name.upper()}: .*cannot be read"):
        server_security(settings, VARIABLE, HERE[0])


# ------------------------------------------------------------------------------- calls


def caller(home: Path, **settings: Any) -> ProcessSettings:
    return ProcessSettings(home=home, **settings)


def test_without_settings_calls_are_plain(tmp_path: Path) -> None:
    security = client_security(caller(tmp_path), ["trainer:50052"])
    assert (False, ()) == (security.encrypted, security.metadata("trainer:50052"))


def test_an_own_certificate_alone_makes_no_call_encrypted(
    authority: Authority, tmp_path: Path
) -> None:
    pair = authority.server
    settings = caller(tmp_path, tls_cert=pair.cert, tls_key=pair.key)
    assert not client_security(settings, []).encrypted


def test_an_authority_and_a_token_are_used_for_every_call(
    authority: Authority, tmp_path: Path
) -> None:
    settings = caller(tmp_path, tls_ca=authority.path, token_file=token_file(tmp_path))
    security = client_security(settings, ["trainer:50052"])
    assert security.encrypted
    assert (("authorization", f"Bearer {WRITE}"),) == security.metadata("another:1")


def test_a_host_that_the_token_must_not_be_sent_to_stops_the_start(tmp_path: Path) -> None:
    settings = caller(tmp_path, token_file=token_file(tmp_path))
    client_security(settings, ["127.0.0.1:50052"])
    with pytest.raises(TokenNotSentError, match="not sent to trainer:50052"):
        client_security(settings, ["127.0.0.1:50052", "trainer:50052"])
    insecure = caller(tmp_path, token_file=token_file(tmp_path), insecure=True)
    client_security(insecure, ["trainer:50052"])


@pytest.mark.parametrize("name", ["tls_ca", "token_file"])
def test_a_callers_file_that_is_not_there_stops_the_start(tmp_path: Path, name: str) -> None:
    settings = caller(tmp_path, **{name: tmp_path / "missing"})
    with pytest.raises(CredentialsError, match=f"^KTRDR_{name.upper()}: .*cannot be read"):
        client_security(settings, [])

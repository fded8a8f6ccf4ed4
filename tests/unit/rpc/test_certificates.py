from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from shared.rpc.certificates import CA, read_authorities, read_key_pair
from shared.rpc.errors import CredentialsError
from tests.support.certificates import FUTURE, PAST, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def complaint(cert: Path, key: Path) -> str:
    with pytest.raises(CredentialsError) as caught:
        read_key_pair(cert, key)
    return caught.value.message


def pem(key: PrivateKeyTypes, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_a_certificate_and_its_key_are_what_is_in_the_files(authority: Authority) -> None:
    made = authority.server
    pair = read_key_pair(made.cert, made.key)
    assert (made.cert.read_bytes(), made.key.read_bytes()) == (pair.chain, pair.key)
    assert repr(pair.key) not in repr(pair)


def test_the_key_of_another_certificate_is_refused(authority: Authority) -> None:
    text = complaint(authority.server.cert, authority.client.key)
    assert text.startswith("KTRDR_TLS_KEY: ")
    assert f"is not that of the certificate in {authority.server.cert}" in text


@pytest.mark.parametrize(("validity", "what"), [(PAST, "has expired on"), (FUTURE, "not valid")])
def test_a_certificate_out_of_its_time_is_refused(
    authority: Authority, validity: tuple[object, object], what: str
) -> None:
    made = authority.issue(file="other", validity=validity)  # type: ignore[arg-type]  # both are times
    text = complaint(made.cert, made.key)
    assert text.startswith(f"KTRDR_TLS_CERT: the certificate in {made.cert} ")
    assert what in text


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff\x00", b"x" * (8 * 2**20 + 1)])
@pytest.mark.parametrize("broken", ["cert", "key"])
def test_a_file_that_is_missing_or_no_pem_is_named_with_its_variable(
    authority: Authority, broken: str, content: bytes | None
) -> None:
    path: Path = getattr(authority.server, broken)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    text = complaint(authority.server.cert, authority.server.key)
    assert text.startswith(f"KTRDR_TLS_{broken.upper()}: ")
    assert str(path) in text
    assert "name a" in text


def test_a_key_in_place_of_a_certificate_is_refused(authority: Authority) -> None:
    assert "holds no certificate" in complaint(authority.server.key, authority.server.key)
    assert "holds no private key" in complaint(authority.server.cert, authority.server.cert)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(
    authority: Authority,
) -> None:
    made = authority.server
    key = load_pem_private_key(made.key.read_bytes(), None)
    made.key.write_bytes(pem(key, BestAvailableEncryption(b"secret")))
    assert "is encrypted; decrypt it with `openssl pkey" in complaint(made.cert, made.key)


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())]
)
def test_a_key_that_grpc_would_not_use_is_refused_at_once(
    authority: Authority, key: PrivateKeyTypes
) -> None:
    authority.server.key.write_bytes(pem(key))
    assert "RSA, or EC on P-256 or P-384" in complaint(authority.server.cert, authority.server.key)


def test_authorities_are_what_is_in_the_file(authority: Authority) -> None:
    assert authority.path.read_bytes() == read_authorities(authority.path, CA)


def test_one_valid_authority_among_others_is_enough(authority: Authority) -> None:
    expired = authority.issue("old", file="old", validity=PAST)
    bundle = expired.cert.read_bytes() + authority.path.read_bytes()
    authority.path.write_bytes(bundle)
    assert bundle == read_authorities(authority.path, CA)


def test_authorities_that_have_all_expired_are_refused(authority: Authority) -> None:
    expired = authority.issue("old", file="old", validity=PAST)
    with pytest.raises(CredentialsError, match=r"KTRDR_TLS_CA: .*has expired on"):
        read_authorities(expired.cert, CA)


def test_a_file_without_authorities_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", Path(__file__)):
        with pytest.raises(CredentialsError, match=f"KTRDR_TLS_CLIENT_CA: {path}"):
            read_authorities(path, "KTRDR_TLS_CLIENT_CA")

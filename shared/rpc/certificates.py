"""Certificates and keys in files, read and checked before anything is done with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shared.rpc.errors import CredentialsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

CERT = "KTRDR_TLS_CERT"
KEY = "KTRDR_TLS_KEY"
CA = "KTRDR_TLS_CA"
CLIENT_CA = "KTRDR_TLS_CLIENT_CA"
_MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate, with those up to its authority, and the key to it; both PEM."""

    key: bytes = field(repr=False)
    chain: bytes


def read_key_pair(cert: Path, key: Path) -> KeyPair:
    """Read what a process shows of itself; raises CredentialsError unless it can be used."""
    pair = KeyPair(_read(key, KEY), _read(cert, CERT))
    leaf, *_ = _certificates(pair.chain, cert, CERT)
    _check_time(leaf, cert, CERT)
    private = _private_key(pair.key, key)
    if private.public_key() != leaf.public_key():
        raise CredentialsError(
            f"{KEY}: the key in {key} is not that of the certificate in {cert}. Set {CERT} and "
            f"{KEY} to files that were made together."
        )
    return pair


def read_authorities(path: Path, variable: str) -> bytes:
    """Read the certificates of authorities; raises CredentialsError unless one is valid."""
    data = _read(path, variable)
    first, *others = _certificates(data, path, variable)
    if not any(_is_valid(authority) for authority in (first, *others)):
        _check_time(first, path, variable)
    return data


def _read(path: Path, variable: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CredentialsError(
            f"{variable}: {path} cannot be read ({error.strerror}); name a PEM file that can."
        ) from error
    if len(data) > _MAX_BYTES:
        raise CredentialsError(f"{variable}: {path} is larger than 8 MiB; name a PEM file.")
    return data


def _certificates(data: bytes, path: Path, variable: str) -> list[Certificate]:
    """The certificates in a file, at least one."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(data)
    except ValueError as error:
        raise CredentialsError(
            f"{variable}: {path} holds no certificate in PEM that can be read; name a file that "
            "has one between BEGIN CERTIFICATE and END CERTIFICATE."
        ) from error


def _private_key(data: bytes, path: Path) -> PrivateKeyTypes:
    """The key in a file, of a kind that gRPC can use; what is wrong with it is not told further."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise CredentialsError(
            f"{KEY}: the key in {path} is encrypted; decrypt it with `openssl pkey -in FILE -out "
            "FILE` into a file that only the process may read."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CredentialsError(
            f"{KEY}: {path} holds no private key in PEM that can be read; name a file that has one."
        ) from None
    curve = key.curve if isinstance(key, ec.EllipticCurvePrivateKey) else None
    if not isinstance(key, rsa.RSAPrivateKey) and not isinstance(
        curve, ec.SECP256R1 | ec.SECP384R1
    ):
        raise CredentialsError(
            f"{KEY}: the key in {path} is of a kind that gRPC does not use; make one that is RSA, "
            "or EC on P-256 or P-384."
        )
    return key


def _check_time(certificate: Certificate, path: Path, variable: str) -> None:
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc < now:
        when = f"has expired on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it"
    elif certificate.not_valid_before_utc > now:
        when = (
            f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; wait, "
            "or put the machine's clock right"
        )
    else:
        return
    raise CredentialsError(f"{variable}: the certificate in {path} {when}.")


def _is_valid(certificate: Certificate) -> bool:
    return certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc

"""A backend and its training host over TLS with tokens; and what clients see if that breaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2
from grpc import StatusCode

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import models_service_pb2 as models_pb
from shared import reloading
from shared.rpc.security import PLAIN, ClientSecurity
from tests.integration.hosted import Hosted, backend_on, let_end
from tests.integration.refusals import refused
from tests.integration.running import CANCELLED, CANCELLING, COMPLETED, RUNNING, RunningBackend
from tests.support.certificates import (
    READ,
    STRANGE,
    Authority,
    called_with,
    served_with,
    token_file,
    tokens_file,
)
from tests.support.eventually import eventually
from tests.support.hosts import ScriptedHost, scripted_host
from tests.support.relay import Relay


class Guarded:
    """The certificates and tokens of a host, and the settings of a backend that may use it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.authority = Authority(home / "ca")
        self.tokens = tokens_file(home)
        own = self.authority.issue(file="backend")
        self.settings: dict[str, Any] = {
            "tls_ca": self.authority.path,
            "tls_cert": own.cert,
            "tls_key": own.key,
            "token_file": token_file(home),
        }

    @contextmanager
    def host(self, **options: Any) -> Iterator[ScriptedHost]:
        """A host that asks for a certificate and a token."""
        client_ca = self.authority.path
        guard = served_with(self.authority.server, client_ca=client_ca, tokens=self.tokens)
        with scripted_host(self.home / "host", security=guard, **options) as host:
            yield host
            let_end(host)

    @contextmanager
    def backend(self, *targets: str) -> Iterator[RunningBackend]:
        """A backend that trains on hosts; every look asks them. It serves with TLS itself."""
        with backend_on(
            self.home / "backend", *targets, cache_ttl=0.0, client=self.client, **self.settings
        ) as running:
            yield running

    @property
    def client(self) -> ClientSecurity:
        """How a client connects to the backend."""
        return called_with(self.authority) if "tls_cert" in self.settings else PLAIN

    @contextmanager
    def pair(self) -> Iterator[Hosted]:
        """Both of them, with a network in between."""
        with (
            self.host() as host,
            closing(Relay(host.address)) as relay,
            self.backend(relay.address) as running,
        ):
            yield Hosted(host, relay, running)
            let_end(host)


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files of tokens and certificates whenever asked."""
    monkeypatch.setattr(reloading, "INTERVAL", 0.0)


# ---------------------------------------------------------------------------- it works


def test_a_training_runs_on_a_host_behind_tls_and_tokens(guarded: Guarded) -> None:
    with guarded.pair() as pair:
        operation_id, work = pair.training(3)
        work.report_epochs(1, first=3)
        assert [1, 2, 3, 4] == pair.epochs(operation_id)
        assert not pair.running.models.ListModels(models_pb.ListModelsRequest()).unreachable
        work.finish()
        assert COMPLETED == pair.running.ended(operation_id).status


def test_a_cancellation_reaches_it(guarded: Guarded) -> None:
    with guarded.pair() as pair:
        operation_id, work = pair.training(1)
        assert CANCELLING == pair.running.cancel(operation_id).status
        work.notice_cancel()
        assert CANCELLED == pair.running.ended(operation_id).status


# ----------------------------------------------------------------------- not let in


@pytest.mark.parametrize(
    ("token", "reason"),
    [(None, "TOKEN_MISSING"), (STRANGE, "TOKEN_UNKNOWN")],
)
def test_a_start_is_refused_with_why_the_host_does_not_let_the_backend_in(
    guarded: Guarded, token: str | None, reason: str
) -> None:
    del guarded.settings["token_file"]
    if token:
        guarded.settings["token_file"] = token_file(guarded.home, token)
    with guarded.host() as host, guarded.backend(host.address) as front:
        refusal = refused(front.train)
        assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
        assert f"does not let this process in ({reason}). Set KTRDR_TOKEN_FILE" in refusal.message
        assert not host.works


def test_a_token_that_may_only_read_starts_nothing_and_leaves_nothing(guarded: Guarded) -> None:
    guarded.settings["token_file"] = token_file(guarded.home, READ)
    with guarded.host() as host, guarded.backend(host.address) as front:
        refusal = refused(front.train)
        assert StatusCode.UNAVAILABLE == refusal.code
        assert "(WRITE_SCOPE_NEEDED)" in refusal.message
        assert not front.operations.ListOperations(pb.ListOperationsRequest()).operations


def test_another_host_trains_in_place_of_one_that_does_not_let_us_in(
    guarded: Guarded, tmp_path: Path
) -> None:
    strict = Guarded(tmp_path / "strict")
    strict.authority = guarded.authority
    strict.tokens.write_text(f"somebody write {STRANGE}\n")
    with (
        strict.host() as first,
        guarded.host() as second,
        guarded.backend(first.address, second.address) as front,
    ):
        operation_id = front.train()
        assert (0, 1) == (len(first.works), len(second.works))
        second.work(operation_id)


@pytest.mark.usefixtures("at_once")
def test_a_token_that_is_taken_away_leaves_the_last_known_state_with_the_reason(
    guarded: Guarded,
) -> None:
    with guarded.pair() as pair:
        operation_id, work = pair.training(2)
        before = guarded.tokens.read_text()
        guarded.tokens.write_text(f"somebody write {STRANGE}\n")

        answer = pair.look(operation_id, metrics_cursor=0)
        error = answer.operation.freshness.refresh_error
        assert (RUNNING, 2) == (answer.operation.status, len(answer.metrics))
        assert ("HOST_DENIED", code_pb2.UNAVAILABLE) == (error.reason, error.code)
        assert "(TOKEN_UNKNOWN)" in error.message
        refusal = refused(lambda: pair.running.operation(operation_id))
        assert (StatusCode.UNAVAILABLE, "HOST_DENIED") == (refusal.code, refusal.reason)
        listing = pair.running.operations.ListOperations(pb.ListOperationsRequest())
        assert [pair.relay.address] == listing.unreachable

        guarded.tokens.write_text(before)
        work.report_epochs(1, first=2)
        eventually(lambda: [1, 2, 3] == pair.known_epochs(operation_id))


# ------------------------------------------------------------------------- not trusted


def test_a_host_that_shows_another_certificate_is_not_believed_until_it_is_back(
    guarded: Guarded, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    with guarded.pair() as pair:
        operation_id, work = pair.training(2)
        with scripted_host(tmp_path / "false", security=served_with(other.server)) as false:
            pair.lead_to(false.address)
            error = pair.refresh_error(operation_id)
            assert ("TLS_HANDSHAKE_FAILED", code_pb2.UNAVAILABLE) == (error.reason, error.code)
            assert "not from an authority in KTRDR_TLS_CA" in error.message
            assert not false.calls
            pair.lead_to(pair.host.address)
            work.report_epochs(1, first=2)
            assert [1, 2, 3] == pair.epochs(operation_id)


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        (("tls_ca",), "If it speaks TLS, set KTRDR_TLS_CA"),
        (("tls_cert", "tls_key"), "If it asks for certificates, set KTRDR_TLS_CERT"),
    ],
)
def test_a_backend_that_lacks_something_says_what_to_set(
    guarded: Guarded, left_out: tuple[str, ...], words: str
) -> None:
    for name in left_out:
        del guarded.settings[name]
    with guarded.host() as host, guarded.backend(host.address) as front:
        refusal = refused(front.train)
        assert (StatusCode.UNAVAILABLE, "HOST_UNREACHABLE") == (refusal.code, refusal.reason)
        assert words in refusal.message


def test_a_backend_that_wants_tls_says_that_its_host_does_not_speak_it(guarded: Guarded) -> None:
    with (
        scripted_host(guarded.home / "host") as host,
        guarded.backend(host.address) as front,
    ):
        assert "it does not speak TLS" in refused(front.train).message

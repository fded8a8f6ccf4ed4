"""Whatever happens, no log line, no error and no answer holds a token."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared import reloading
from shared.operations.service import OperationsService
from shared.rpc.errors import KtrdrError
from shared.rpc.security import ClientSecurity
from shared.security import client_security
from shared.settings import ProcessSettings
from tests.integration.hosted import backend_on, let_end
from tests.integration.running import SMALL, RunningBackend
from tests.support.certificates import (
    READ,
    STRANGE,
    WRITE,
    bearer,
    served_with,
    token_file,
    tokens_file,
)
from tests.support.hosts import ScriptedHost, scripted_host

TOKENS = (READ, WRITE, STRANGE)


class Heard:
    """Everything that was said to anybody."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def note(self, what: object) -> None:
        self._said.append(repr(what))
        if isinstance(what, grpc.RpcError):
            call: Any = what
            self._said += [str(what), repr(call.trailing_metadata()), str(call.details())]
        if isinstance(what, KtrdrError):
            self._said += [str(what), what.message, repr(what.metadata), repr(what.__cause__)]

    def call(self, method: Any, request: Any, metadata: Any) -> Any:
        """Make a call and note how it ends."""
        try:
            answer = method(request, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            self.note(error)
            return None
        self.note(answer)
        return answer

    def secrets(self, *more: str) -> set[str]:
        """The tokens that somebody has said; more than a few signs of one count."""
        whole = "\n".join([*self._said, *more])
        return {token for token in TOKENS if token[:12] in whole}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedHost]:
    """A host that wants tokens, and looks at their file whenever asked."""
    monkeypatch.setattr(reloading, "INTERVAL", 0.0)
    home = tmp_path / "host"
    home.mkdir()
    with scripted_host(home, security=served_with(tokens=tokens_file(home))) as host:
        yield host
        let_end(host)


@pytest.fixture
def front(tmp_path: Path, host: ScriptedHost) -> Iterator[RunningBackend]:
    """A backend that wants tokens and has one for its host."""
    home = tmp_path / "backend"
    home.mkdir()
    files = {"tokens_file": tokens_file(home), "token_file": token_file(home)}
    with backend_on(home, host.address, cache_ttl=0.0, **files) as front:
        yield front


def test_a_token_is_found_where_it_is_said() -> None:
    heard = Heard()
    heard.note({"metadata": bearer(READ)})
    assert {READ, WRITE} == heard.secrets(f"log: {WRITE[:-2]}")


def test_no_token_is_ever_said(
    tmp_path: Path,
    host: ScriptedHost,
    front: RunningBackend,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG, "ktrdr")
    caplog.set_level(logging.DEBUG)
    heard = Heard()
    start = training_pb.StartTrainingRequest(strategy_yaml=SMALL, request_id="a")
    look = pb.GetOperationRequest(operation_id="op_training_a", force_refresh=True)
    heard.call(front.training.StartTraining, start, bearer(WRITE))
    for metadata in [(), *map(bearer, TOKENS), (("authorization", f"Basic {STRANGE}"),)]:
        heard.call(front.operations.GetOperation, look, metadata)
        heard.call(front.training.StartTraining, start, metadata)

    # The host does not let the backend in any more, then its file is broken.
    host_tokens = tmp_path / "host" / "tokens"
    host_tokens.write_text(f"other write {STRANGE}\n")
    heard.call(front.operations.GetOperation, look, bearer(READ))
    heard.call(front.operations.ListOperations, pb.ListOperationsRequest(), bearer(READ))
    for broken in (f"{READ} {WRITE} {STRANGE}", f"other {WRITE} write", f"other write {STRANGE}é"):
        host_tokens.write_text(broken)
        heard.call(front.operations.GetOperation, look, bearer(READ))

    # A defect of ours, and the traceback in the log.
    monkeypatch.setattr(OperationsService, "get_operation", lambda *_, **__: 1 / 0)
    heard.call(front.operations.GetOperation, look, bearer(READ))

    said = capfd.readouterr()
    assert "Still using what was read before: KTRDR_TOKENS_FILE: line 1" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert set() == heard.secrets(caplog.text, said.out, said.err)


def test_what_holds_a_token_does_not_show_it(tmp_path: Path) -> None:
    heard = Heard()
    settings = ProcessSettings(home=tmp_path, token_file=token_file(tmp_path))
    security = client_security(settings, [])
    for what in (security, security.token, ClientSecurity(token=lambda: WRITE), settings):
        heard.note(what)
    with pytest.raises(KtrdrError) as caught:
        security.metadata("trainer:50052")
    heard.note(caught.value)
    for swapped in (Path(WRITE), tmp_path / WRITE):
        with pytest.raises(KtrdrError) as caught:
            client_security(ProcessSettings(home=tmp_path, token_file=swapped), [])
        heard.note(caught.value)
    assert set() == heard.secrets()

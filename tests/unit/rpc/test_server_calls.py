from __future__ import annotations

import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # missing in the stubs

from shared.rpc import health
from shared.rpc.server_calls import ServerCalls
from tests.support.rpc import TIMEOUT, probe, served


def answer(request: Any, context: grpc.ServicerContext) -> bytes:
    return b"answer"


def test_a_server_is_told_from_the_others() -> None:
    with served([probe({"Read": answer})]) as one, served([probe({"Read": answer})]) as other:
        before = one.server._calls.under_way(), other.server._calls.under_way()
        watcher = one.channel.unary_stream(f"/{health.SERVICE_NAME}/Watch")(b"", timeout=TIMEOUT)
        next(watcher)
        after = one.server._calls.under_way(), other.server._calls.under_way()
        watcher.cancel()
    assert ((0, 0), (1, 0)) == (before, after)


def test_a_server_that_is_gone_has_no_calls() -> None:
    calls = ServerCalls()
    server = calls.count(lambda: grpc.server(ThreadPoolExecutor(1)))
    assert 0 == calls.under_way()
    server.stop(None).wait(TIMEOUT)
    del server
    gc.collect()
    assert 0 == calls.under_way()


@pytest.mark.parametrize("servers", [0, 2])
def test_counts_are_those_of_one_server(servers: int) -> None:
    def create() -> grpc.Server:
        made = [grpc.server(ThreadPoolExecutor(1)) for _ in range(max(1, servers))]
        return made[0]

    alone = create()
    make = create if servers else lambda: alone
    with pytest.raises(RuntimeError, match=f"calls of {servers} new servers; one was expected"):
        ServerCalls().count(make)
    assert 0 == ServerCalls().under_way()


@pytest.mark.parametrize("told", [b"{}", b"nothing", b'{"server":{"data":{"callsStarted":null}}}'])
def test_counts_that_cannot_be_read_are_told_once_and_count_for_nothing(
    told: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = ServerCalls()
    server = calls.count(lambda: grpc.server(ThreadPoolExecutor(1)))
    monkeypatch.setattr(cygrpc, "channelz_get_server", lambda _: told)
    with caplog.at_level(logging.ERROR):
        assert [0, 0] == [calls.under_way(), calls.under_way()]
    assert 1 == len(caplog.records)
    assert f"in what grpcio {grpc.__version__} tells of its servers" in caplog.text
    server.stop(None).wait(TIMEOUT)


@pytest.mark.parametrize("told", [b"nothing", b'{"server":[{}]}'])
def test_a_server_whose_calls_cannot_be_counted_is_none(
    told: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cygrpc, "channelz_get_servers", lambda _: told)
    with pytest.raises(RuntimeError, match="gRPC's servers cannot be listed"):
        ServerCalls().count(lambda: grpc.server(ThreadPoolExecutor(1)))


def test_a_grpc_that_does_not_count_calls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cygrpc, "channelz_get_servers")
    with pytest.raises(RuntimeError, match="no attribute 'channelz_get_servers'"):
        ServerCalls().count(lambda: grpc.server(ThreadPoolExecutor(1)))


def test_a_server_is_found_behind_more_than_a_page_of_others() -> None:
    options = [("grpc.enable_channelz", 1)]
    others = [grpc.server(ThreadPoolExecutor(1), options=options) for _ in range(120)]
    calls = ServerCalls()
    server = calls.count(lambda: grpc.server(ThreadPoolExecutor(1), options=options))
    assert 0 == calls.under_way()
    for one in [*others, server]:
        one.stop(None).wait(TIMEOUT)

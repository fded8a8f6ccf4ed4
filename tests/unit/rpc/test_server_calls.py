from __future__ import annotations

import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz

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


def test_counts_that_cannot_be_read_are_told_once_and_count_for_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = ServerCalls()
    server = calls.count(lambda: grpc.server(ThreadPoolExecutor(1)))
    monkeypatch.setattr(channelz.ChannelzServicer, "GetServer", unreadable)
    with caplog.at_level(logging.ERROR):
        assert [0, 0] == [calls.under_way(), calls.under_way()]
    assert 1 == len(caplog.records)
    assert "install the grpcio-channelz that fits grpcio" in caplog.text
    server.stop(None).wait(TIMEOUT)


def test_a_server_whose_calls_cannot_be_counted_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channelz.ChannelzServicer, "GetServers", unreadable)
    with pytest.raises(RuntimeError, match=r"cannot be listed: no field x; install"):
        ServerCalls().count(lambda: grpc.server(ThreadPoolExecutor(1)))


def unreadable(request: Any, context: Any) -> None:
    context.set_code(grpc.StatusCode.INTERNAL)
    context.set_details("no field x")

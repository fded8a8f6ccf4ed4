from __future__ import annotations

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from shared.rpc.channel import CHANNEL_OPTIONS, KEEPALIVE_MS, open_channel
from shared.rpc.server import SERVER_OPTIONS, RpcServer, ServerLimits
from tests.support.eventually import eventually

CHECK = "/grpc.health.v1.Health/Check"


def test_a_client_pings_no_oftener_than_servers_allow() -> None:
    allowed = dict(SERVER_OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"]
    assert KEEPALIVE_MS == dict(CHANNEL_OPTIONS)["grpc.keepalive_time_ms"]
    assert allowed <= KEEPALIVE_MS


def test_a_channel_finds_its_server_again_soon_after_a_restart() -> None:
    server = RpcServer([], "127.0.0.1:0", ServerLimits(), "me")
    address = server.bind()
    server.start()
    with open_channel(address) as channel:
        check = channel.unary_unary(
            CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        assert serves(check)
        server.stop(0)
        assert not serves(check)
        server = RpcServer([], address, ServerLimits(), "me")
        server.bind()
        server.start()
        eventually(lambda: serves(check), within=5)
        server.stop(0)


def serves(
    check: grpc.UnaryUnaryMultiCallable[Message, health_pb2.HealthCheckResponse],
) -> bool:
    try:
        answer = check(health_pb2.HealthCheckRequest(), timeout=5)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

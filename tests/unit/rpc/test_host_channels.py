from __future__ import annotations

import pytest

from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from shared.rpc.errors import HostUnreachableError
from shared.rpc.host_channels import HostChannels
from tests.support.rpc import TIMEOUT


def test_a_target_has_one_channel() -> None:
    channels = HostChannels("me")
    assert channels.to("a:1") is channels.to("a:1")
    assert channels.to("a:1") is not channels.to("b:1")
    channels.close()


def test_after_the_end_every_channel_is_a_closed_one() -> None:
    channels = HostChannels("me")
    channels.to("a:1")
    channels.close()
    for target in ("a:1", "b:1"):
        with pytest.raises(HostUnreachableError, match="This process is ending"):
            channels.to(target).call(OperationsServiceStub, "Ask", b"", TIMEOUT)

from __future__ import annotations

import pytest

from shared.rpc.addresses import is_local


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:50051",
        "127.9.9.9:0",
        "localhost:50051",
        "[::1]:50051",
        "[::ffff:127.0.0.1]:50051",
        "ipv4:127.0.0.1:50051",
        "ipv6:[::1]:50051",
        "dns:localhost:50051",
        "dns:///localhost:50051",
        "unix:/run/ktrdr.sock",
        "unix-abstract:ktrdr",
    ],
)
def test_these_lead_to_this_machine_alone(address: str) -> None:
    assert is_local(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:50051",
        "[::]:50051",
        "[::ffff:10.0.0.1]:50051",
        "10.0.0.1:50051",
        "trainer:50051",
        "localhost.example.org:50051",
        "127.0.0.1.example.org:50051",
        "dns:///trainer:50051",
        "dns://127.0.0.1/trainer:50051",
        "ipv4:10.0.0.1:50051",
        "",
        "50051",
    ],
)
def test_these_do_not_or_may_not(address: str) -> None:
    assert not is_local(address)

"""How a gateway connects, to the simulator over a real socket, and what if that is lost."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ib_host.gateway.connection import GatewayAddress
from ib_host.gateway.gateway import Gateway
from ib_host.ib_errors import IbConnectionError, IbError, IbUnreachableError
from ib_host.simulator import answers
from ib_host.simulator.faults import (
    FAILURES,
    Cut,
    Drop,
    Fail,
    FarmDown,
    Fault,
    Hang,
    LinkLost,
    Moment,
)
from ib_host.simulator.refusals import Refusal
from ib_host.simulator.server import TwsSimulator
from tests.support.eventually import eventually
from tests.unit.ib_host.gateway.asking import Make, bars, count


def test_client_ids_in_use_are_passed_over(make: Make, simulator: TwsSimulator) -> None:
    first, second = make(), make()
    bars(first)

    bars(second)

    assert (1, 2) == simulator.client_ids


def test_a_gateway_with_all_client_ids_in_use_is_told_of(
    make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Fail(FAILURES["326"]), Moment.CONNECT, times=0))

    with pytest.raises(IbConnectionError, match="all client ids from 1 to 16"):
        bars(make())


def test_nobody_listening_is_told_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    gateway = Gateway(GatewayAddress("127.0.0.1", port))
    try:
        with pytest.raises(IbUnreachableError, match="does not accept connections"):
            bars(gateway)
    finally:
        gateway.stop()


def test_a_gateway_that_does_not_say_a_word_is_given_up(
    make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(Hang(), Moment.CONNECT))
    gateway = make(connect_timeout=0.2)

    with pytest.raises(IbConnectionError, match="does not answer"):
        bars(gateway)

    assert 5 == len(bars(make()).rows)


def test_being_refused_while_connecting_is_an_error_in_ibs_words(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_up = answers.start_up

    def without_executions(asked: Sequence[str]) -> Sequence[answers.Fields] | None:
        if asked[0] != "7":
            return start_up(asked)
        refusal = Refusal(321, "Executions are not for you")
        return [answers.error(int(asked[2]), refusal, 176)]

    monkeypatch.setattr(answers, "start_up", without_executions)

    with pytest.raises(IbError, match="Executions are not for you") as raised:
        bars(make())
    assert 321 == raised.value.code


@pytest.mark.parametrize("effect", [Drop(), Cut()])
def test_being_hung_up_on_while_connecting_is_noticed_at_once(
    effect: Drop | Cut, make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(effect, Moment.CONNECT))
    gateway = make(connect_timeout=300)

    with pytest.raises(IbConnectionError, match="hung up at once"):
        bars(gateway)

    assert 5 == len(bars(gateway).rows)


def test_a_gateway_that_is_too_old_is_told_of_at_once(aside: ThreadPoolExecutor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            client, _ = server.accept()
            with client:
                answer = b"100\0" + b"20240101 00:00:00 UTC\0"
                client.recv(100)
                client.sendall(len(answer).to_bytes(4, "big") + answer)
                while client.recv(100):
                    pass  # until the other side hangs up

        greeted = aside.submit(greet)
        gateway = Gateway(GatewayAddress("127.0.0.1", server.getsockname()[1], connect_timeout=300))
        try:
            with pytest.raises(IbError, match="version must be >=") as raised:
                bars(gateway)
        finally:
            gateway.stop()
        greeted.result(10)

    assert 503 == raised.value.code


@pytest.mark.parametrize("effect", [Drop(), Cut()])
@pytest.mark.parametrize("moment", [Moment.DETAILS, Moment.BARS])
def test_a_connection_that_is_lost_is_made_anew_by_the_next_call(
    effect: Drop | Cut, moment: Moment, make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(effect, moment))
    gateway = make()

    with pytest.raises(IbConnectionError, match="was lost"):
        bars(gateway)

    assert 5 == len(bars(gateway).rows)
    assert 2 == count(simulator, Moment.CONNECT)


def test_a_gateway_that_was_restarted_is_found_again(make: Make, simulator: TwsSimulator) -> None:
    gateway = make()
    bars(gateway)
    simulator.stop()
    with pytest.raises(IbConnectionError):
        bars(gateway)
    assert not gateway.is_connected
    simulator.start()

    assert 5 == len(bars(gateway).rows)


def test_a_reset_of_the_socket_is_a_lost_connection(make: Make, simulator: TwsSimulator) -> None:
    gateway = make()
    bars(gateway)

    simulator.announce(1300)

    eventually(lambda: simulator.client_ids == ())
    assert 5 == len(bars(gateway).rows)


@pytest.mark.parametrize("restored", [1101, 1102])
def test_a_lost_link_ends_what_waits_until_it_is_restored(
    restored: int, make: Make, simulator: TwsSimulator
) -> None:
    simulator.faults.add(Fault(LinkLost(restored, None), Moment.BARS))
    gateway = make()

    for _ in range(2):
        with pytest.raises(IbConnectionError, match="has lost IB's servers"):
            bars(gateway)
    assert not gateway.is_connected
    simulator.restore_link(restored)

    eventually(lambda: gateway.is_connected)
    assert 5 == len(bars(gateway).rows)
    assert 1 == count(simulator, Moment.CONNECT)
    eventually(lambda: simulator.open_requests == 0)


def test_a_link_that_stays_lost_is_tried_with_a_new_connection(
    make: Make, simulator: TwsSimulator
) -> None:
    gateway = make(link_timeout=0.0)
    bars(gateway)
    simulator.announce(1100)  # and no word that it is back

    eventually(lambda: not gateway.is_connected)
    assert 5 == len(bars(gateway).rows)
    assert 2 == count(simulator, Moment.CONNECT)


def test_a_farm_that_is_down_is_not_asked(make: Make, simulator: TwsSimulator) -> None:
    simulator.faults.add(Fault(FarmDown(None), Moment.BARS))
    gateway = make()
    with pytest.raises(IbError, match="HMDS server disconnect"):
        bars(gateway)

    with pytest.raises(IbConnectionError, match="service of historical data is down"):
        bars(gateway)
    simulator.restore_farm()

    eventually(lambda: _works(gateway))
    assert 2 == count(simulator, Moment.BARS)


def _works(gateway: Gateway) -> bool:
    try:
        return len(bars(gateway).rows) == 5
    except IbConnectionError:
        return False

"""The proper answer to a request, before any fault: rules, then data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ib_host.simulator import answers
from ib_host.simulator.answers import Fields
from ib_host.simulator.desk import Asked, Desk
from ib_host.simulator.durations import bar_size
from ib_host.simulator.faults import FAILURES, Moment
from ib_host.simulator.pacing import PacedRequest
from ib_host.simulator.protocol import BarsRequest, DataRequest, DetailsRequest, HeadRequest
from ib_host.simulator.refusals import NO_TIME_ZONE


def asked(request: DataRequest, client_id: int) -> Asked:
    """Write a request down for the journal."""
    symbol = request.contract.symbol or request.contract.local_symbol
    match request:
        case DetailsRequest():
            return Asked(Moment.DETAILS, client_id, symbol)
        case HeadRequest(what=what, regular_hours=regular):
            return Asked(Moment.HEAD, client_id, symbol, what=what, regular_hours=regular)
        case BarsRequest():
            return Asked(
                Moment.BARS,
                client_id,
                symbol,
                request.bar_size,
                request.duration,
                request.end,
                request.what,
                request.regular_hours,
            )


def reply(desk: Desk, request: DataRequest, version: int) -> Sequence[Fields]:
    """Return the messages that answer a request; raises Refusal as TWS refuses."""
    match request:
        case DetailsRequest():
            return _details(desk, request, version)
        case HeadRequest():
            _check_farm(desk)
            desk.pacing.admit(_paced(request))
            head = desk.history.head(request)
            return [answers.head_timestamp(request.request_id, head, request.date_format)]
        case BarsRequest():
            _check_farm(desk)
            return _bars(desk, request, version)


def _details(desk: Desk, request: DetailsRequest, version: int) -> Sequence[Fields]:
    found = desk.history.directory.find(request.contract)
    now = desk.clock.now()
    return [
        *(answers.details(request.request_id, each, now, version) for each in found),
        answers.details_end(request.request_id),
    ]


def _bars(desk: Desk, request: BarsRequest, version: int) -> Sequence[Fields]:
    if bar_size(request.bar_size).small or desk.pacing.rules.paces_all_bars:
        desk.pacing.admit(_paced(request))
    bars = desk.history.bars(request)
    message = answers.bars(request.request_id, bars)
    if bars.implied_zone:
        return [answers.error(request.request_id, NO_TIME_ZONE, version), message]
    return [message]


def _check_farm(desk: Desk) -> None:
    if not desk.farm_is_up:
        raise FAILURES["hmds-down"].anew()


def _paced(request: BarsRequest | HeadRequest) -> PacedRequest:
    contract = request.contract
    return PacedRequest(
        identity=replace(request, request_id=0),
        group=(contract.con_id or contract.symbol, contract.exchange, request.what),
        weight=2 if request.what == "BID_ASK" else 1,
    )

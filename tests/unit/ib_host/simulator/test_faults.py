from __future__ import annotations

import pytest

from ib_host.simulator.faults import (
    FAILURES,
    Cut,
    Delay,
    Drop,
    Effect,
    Fail,
    FarmDown,
    Fault,
    FaultPlan,
    Hang,
    LinkLost,
    Moment,
    Notice,
    parse_fault,
)
from ib_host.simulator.refusals import Refusal


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("bars=hang", Fault(Hang(), Moment.BARS)),
        ("any=drop", Fault(Drop())),
        ("bars/IBM=cut", Fault(Cut(), Moment.BARS, "IBM")),
        ("bars@2=pacing", Fault(Fail(FAILURES["pacing"]), Moment.BARS, skip=2)),
        ("headx3=200", Fault(Fail(FAILURES["200"]), Moment.HEAD, times=3)),
        ("details/XYZ@1x0=hang", Fault(Hang(), Moment.DETAILS, "XYZ", 1, 0)),
        ("connect=326", Fault(Fail(FAILURES["326"]), Moment.CONNECT)),
        ("time=delay:0.5", Fault(Delay(0.5), Moment.TIME)),
        ("bars=1100", Fault(LinkLost(seconds=None), Moment.BARS)),
        ("bars=1101:2", Fault(LinkLost(1101, 2.0), Moment.BARS)),
        ("bars=1102", Fault(LinkLost(1102, 1.0), Moment.BARS)),
        ("bars=farm-down:3", Fault(FarmDown(3.0), Moment.BARS)),
        ("any=notice:2103", Fault(Notice(2103))),
        (
            "bars=error:162:a text: of @ any x2",
            Fault(Fail(Refusal(162, "a text: of @ any x2")), Moment.BARS),
        ),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    assert fault == parse_fault(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bars",
        "bars=",
        "=hang",
        "orders=hang",
        "bars=explode",
        "bars=delay",
        "bars=delay:long",
        "bars=delay:-1",
        "bars=error:x:y",
        "bars=notice:",
        "bars@x=hang",
        "bars=pacing:5",
    ],
)
def test_another_text_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match="is no fault; write PLACE"):
        parse_fault(text)


def strikes(plan: FaultPlan, count: int, at: Moment = Moment.BARS) -> list[Effect | None]:
    return [plan.take(at, "IBM") for _ in range(count)]


def test_without_faults_nothing_happens() -> None:
    assert [None] * 3 == strikes(FaultPlan(), 3)


def test_a_fault_strikes_once_after_those_it_spares() -> None:
    assert [None, None, Hang(), None] == strikes(FaultPlan(Fault(Hang(), skip=2)), 4)


def test_a_fault_strikes_as_often_as_it_says_or_always() -> None:
    assert [Hang(), Hang(), None] == strikes(FaultPlan(Fault(Hang(), times=2)), 3)
    assert [Hang()] * 5 == strikes(FaultPlan(Fault(Hang(), times=0)), 5)


def test_a_fault_strikes_only_its_place_and_symbol() -> None:
    plan = FaultPlan(Fault(Hang(), Moment.HEAD, "AAPL"))

    assert plan.take(Moment.BARS, "AAPL") is None
    assert plan.take(Moment.HEAD, "IBM") is None
    assert Hang() == plan.take(Moment.HEAD, "AAPL")


def test_any_place_does_not_mean_connecting() -> None:
    plan = FaultPlan(Fault(Hang()))

    assert plan.take(Moment.CONNECT) is None
    assert Hang() == plan.take(Moment.TIME)


def test_of_several_faults_the_first_wins_and_the_next_strikes_next() -> None:
    plan = FaultPlan(Fault(Hang()), Fault(Drop()))

    assert [Hang(), Drop(), None] == strikes(plan, 3)


def test_faults_can_be_added_and_forgotten() -> None:
    plan = FaultPlan()
    strikes(plan, 3)
    plan.add(Fault(Hang(), skip=1))
    assert [None, Hang()] == strikes(plan, 2)

    plan.add(Fault(Drop()))
    plan.clear()

    assert [None] == strikes(plan, 1)


@pytest.mark.parametrize(
    "words",
    [
        "pacing violation",
        "HMDS query returned no data",
        "Request Timed Out",
        "query cancelled",
        "HMDS server",
        "HMDS connection attempt failed",
        "different IP address",
        "No market data permissions",
        "invalid step",
        "BEST queries",
        "No head time stamp",
    ],
)
def test_every_162_that_clients_tell_apart_can_be_had(words: str) -> None:
    assert 1 == sum(f.code == 162 and words in f.text for f in FAILURES.values())

from __future__ import annotations

from dataclasses import fields

from shared.rpc.limits import RequestLimits
from shared.rpc.server import ServerLimits
from shared.settings import ProcessSettings, TrainingSettings
from shared.wiring import request_limits, server_limits


def test_every_limit_of_the_server_is_a_setting() -> None:
    settings = ProcessSettings(
        read_limit=25,
        wait_limit=17,
        wait_queue=1900,
        stream_limit=5,
        start_limit=6,
        watch_limit=900,
        call_limit=4000,
        connection_limit=1900,
        connection_call_limit=900,
        client_patience=4.0,
        max_request_bytes=500_000,
    )
    limits, defaults = server_limits(settings), ServerLimits()
    assert ServerLimits() == server_limits(ProcessSettings())
    assert [] == [f.name for f in fields(limits) if same(limits, defaults, f.name)]


def test_as_many_calls_may_wait_as_are_read_at_once_unless_that_is_set() -> None:
    limits = [
        server_limits(ProcessSettings(read_limit=25)),
        server_limits(ProcessSettings(read_limit=25, backlog_limit=7)),
    ]
    assert [25, 7] == [each.backlog for each in limits]


def test_every_limit_of_a_request_is_a_setting() -> None:
    settings = TrainingSettings(
        max_operation_id=255,
        max_reason=999,
        max_wait=59.0,
        max_symbols=99,
        max_timeframes=98,
        max_strategy_bytes=200_000,
        max_overrides=97,
        max_page_rows=499,
        max_page_metrics=998,
        max_page_bytes=1_000_000,
    )
    limits, defaults = request_limits(settings), RequestLimits()
    assert RequestLimits() == request_limits(TrainingSettings())
    assert [] == [f.name for f in fields(limits) if same(limits, defaults, f.name)]


def same(one: object, other: object, name: str) -> bool:
    return bool(getattr(one, name) == getattr(other, name))


def test_a_process_that_does_not_train_has_the_other_limits_all_the_same() -> None:
    assert 7 == request_limits(ProcessSettings(max_symbols=7)).symbols

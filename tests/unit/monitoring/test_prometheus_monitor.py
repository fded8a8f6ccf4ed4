from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from shared.monitoring.prometheus_monitor import PrometheusMonitor
from shared.operations.model import FreshnessSource, OperationStatus, OperationType
from tests.support.scraping import Exposed, parsed

TRAINING = OperationType.TRAINING


@pytest.fixture
def monitor() -> PrometheusMonitor:
    return PrometheusMonitor()


def told(monitor: PrometheusMonitor) -> Exposed:
    return parsed(generate_latest(monitor.registry).decode())


def test_each_series_is_there_before_anything_happens(monitor: PrometheusMonitor) -> None:
    for type_ in OperationType:
        assert 0 == told(monitor).value("ktrdr_operations_created_total", type=type_.value)
        for status in ("COMPLETED", "FAILED", "CANCELLED"):
            name = "ktrdr_operations_ended_total"
            assert 0 == told(monitor).value(name, type=type_.value, status=status)


def test_endings_are_counted_by_type_and_state(monitor: PrometheusMonitor) -> None:
    monitor.created(TRAINING)
    monitor.ended(TRAINING, OperationStatus.FAILED)
    name = "ktrdr_operations_ended_total"
    assert 1 == told(monitor).value(name, type="TRAINING", status="FAILED")
    assert 0 == told(monitor).value(name, type="DATA_LOADING", status="FAILED")


def test_there_is_no_ratio_before_the_first_query(monitor: PrometheusMonitor) -> None:
    assert monitor.hit_ratio(TRAINING) is None
    for _ in range(3):
        monitor.hit(TRAINING)
    monitor.missed(TRAINING)
    assert 0.75 == monitor.hit_ratio(TRAINING)
    assert monitor.hit_ratio(OperationType.DATA_LOADING) is None


def test_reads_that_fail_count_with_their_time(monitor: PrometheusMonitor) -> None:
    monitor.refreshed(FreshnessSource.REMOTE, 0.25, failed=True)
    monitor.refreshed(FreshnessSource.BRIDGE, 0.5, failed=False)
    exposed = told(monitor)
    assert 0.25 == exposed.value("ktrdr_refresh_duration_seconds_sum", source="remote")
    assert 0.5 == exposed.value("ktrdr_refresh_duration_seconds_sum", source="local")
    assert 1 == exposed.value("ktrdr_refresh_failures_total", source="remote")
    assert 0 == exposed.value("ktrdr_refresh_failures_total", source="local")


def test_calls_share_the_time_of_their_method_whatever_their_status(
    monitor: PrometheusMonitor,
) -> None:
    monitor.called("a.B/C", "OK", 0.25)
    monitor.called("a.B/C", "NOT_FOUND", 0.5)
    monitor.called("a.B/C", "OK", 0.25)
    exposed = told(monitor)
    assert 2 == exposed.value("ktrdr_rpc_calls_total", method="a.B/C", code="OK")
    assert 1 == exposed.value("ktrdr_rpc_calls_total", method="a.B/C", code="NOT_FOUND")
    assert 1.0 == exposed.value("ktrdr_rpc_duration_seconds_sum", method="a.B/C")


def test_the_size_of_what_was_pulled_is_asked_for_once(monitor: PrometheusMonitor) -> None:
    sizes = iter([100])
    monitor.pulled(lambda: next(sizes))
    assert 100 == told(monitor).value("ktrdr_metrics_pull_bytes_sum")


def test_waits_and_sheds_are_counted(monitor: PrometheusMonitor) -> None:
    monitor.paced(12.0)
    monitor.shed("read")
    assert 12.0 == told(monitor).value("ktrdr_ib_pacing_wait_seconds_sum")
    assert 1 == told(monitor).value("ktrdr_rpc_shed_total", **{"class": "read"})

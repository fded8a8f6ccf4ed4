from __future__ import annotations

from shared.operations.model import FreshnessSource
from shared.operations.source import BridgeSource, SourceReading
from tests.unit.operations.fakes import Worker, metric, steps


def test_a_bridge_source_is_in_this_process() -> None:
    source = BridgeSource(Worker().bridge)

    assert (FreshnessSource.BRIDGE, None) == (source.kind, source.target)


def test_a_bridge_is_read_as_it_is_now() -> None:
    worker = Worker()
    source = BridgeSource(worker.bridge)
    worker.measure(1, 2, 3, 4)
    worker.report(25, "")

    reading = source.read(1, 2, 0.0, 5.0)

    assert (1, [2, 3], 4, True) == (
        reading.cursor,
        steps(reading.metrics),
        reading.metrics_count,
        reading.has_more,
    )
    assert reading.progress is not None
    assert 25 == reading.progress.percentage
    assert reading.operation is None


def test_cancelling_sets_the_bridges_signal() -> None:
    worker = Worker()
    BridgeSource(worker.bridge).cancel("enough", 0.0)

    assert (True, "enough") == (worker.bridge.cancel.requested, worker.bridge.cancel.reason)


def test_the_last_page_is_the_one_that_reaches_the_end() -> None:
    assert SourceReading(0, (metric(1),), 2, None).has_more
    assert not SourceReading(1, (metric(2),), 2, None).has_more
    assert not SourceReading(5, (), 2, None).has_more

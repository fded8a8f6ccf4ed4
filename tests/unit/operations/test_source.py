from __future__ import annotations

import pytest

from shared.operations.bridge import BridgeSnapshot, ProgressBridge
from shared.operations.model import FreshnessSource
from shared.operations.source import BridgeSource, SourceReading
from shared.rpc.errors import BridgeUnreadableError
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


class Broken(ProgressBridge):
    """A bridge that cannot be read."""

    def snapshot(self, cursor: int = 0, limit: int | None = None) -> BridgeSnapshot:
        raise ZeroDivisionError("by its own arithmetic")


def test_a_bridge_that_cannot_be_read_is_told_as_such_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = BridgeSource(Broken())

    for _ in range(3):
        with pytest.raises(BridgeUnreadableError, match="ZeroDivisionError: by its own arithmetic"):
            source.read(0, 10, 0.0, 5.0)

    assert ["A bridge cannot be read"] == caplog.messages


def test_cancelling_sets_the_bridges_signal() -> None:
    worker = Worker()
    BridgeSource(worker.bridge).cancel("enough", 0.0)

    assert (True, "enough") == (worker.bridge.cancel.requested, worker.bridge.cancel.reason)


def test_the_last_page_is_the_one_that_reaches_the_end() -> None:
    assert SourceReading(0, (metric(1),), 2, None).has_more
    assert not SourceReading(1, (metric(2),), 2, None).has_more
    assert not SourceReading(5, (), 2, None).has_more

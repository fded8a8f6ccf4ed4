"""Nothing happens when nobody asks: no thread, no poll, no read."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest

from shared.operations.live import LiveOperation
from shared.operations.reader import Reader
from shared.operations.refresh import Refreshed
from tests.integration.running import COMPLETED, RUNNING, running_backend
from tests.support.eventually import eventually


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def _names(threads: set[threading.Thread]) -> list[str]:
    return sorted(thread.name for thread in threads)


def _ours(threads: set[threading.Thread]) -> list[str]:
    """Names of threads that are neither grpc's own nor idle threads of the server's pool."""
    return [name for name in _names(threads) if not name.startswith(("rpc_", "Thread-"))]


def test_a_backend_without_work_has_only_its_server(tmp_path: Path) -> None:
    before = _threads()
    with running_backend(tmp_path) as running:
        assert [] == _ours(_threads() - before)
        (serving,) = (thread for thread in _threads() - before if "_serve" in thread.name)
        assert "grpc" in serving._target.__module__  # type: ignore[attr-defined]  # private, but says whose it is
        assert not running.pool._threads


def test_running_work_has_one_thread_and_no_other_comes_when_clients_look(
    tmp_path: Path,
) -> None:
    before = _threads()
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        assert ["training-1"] == _ours(_threads() - before)
        for _ in range(20):
            running.operation(work.operation_id)
        assert ["training-1"] == _ours(_threads() - before)


def test_reports_nobody_asks_for_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshes: list[str] = []
    refresh = Reader.refresh

    def counted(
        reader: Reader, live: LiveOperation, staleness: float, deadline: float
    ) -> Refreshed:
        refreshes.append(live.operation_id)
        return refresh(reader, live, staleness, deadline)

    monkeypatch.setattr(Reader, "refresh", counted)
    with running_backend(tmp_path, cache_ttl=0.0) as running:
        work = running.scripted.start_running(epochs=5000)
        reads = work.bridge.reads
        del refreshes[:]
        for first in range(0, 5000, 500):
            work.report_epochs(500, first=first)
        assert reads == work.bridge.reads
        assert [] == refreshes
        # Nothing was lost for it: the first to ask gets all of it.
        assert 5000 == running.operation(work.operation_id).metrics_count


def test_the_worker_is_gone_after_the_end(tmp_path: Path) -> None:
    before = _threads()
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        work.finish()
        assert COMPLETED == running.ended(work.operation_id).status
        eventually(lambda: not _ours(_threads() - before))
        assert not running.backend.operations._registry._live


def test_the_worker_is_gone_after_a_real_training(tmp_path: Path) -> None:
    before = _threads()
    with running_backend(tmp_path) as running:
        operation_id = running.train(overrides={"model.training.epochs": "1"})
        assert COMPLETED == running.ended(operation_id).status
        eventually(lambda: not _ours(_threads() - before))


def _event_loops() -> int:
    # By type, not isinstance: that would touch attributes of lazy modules.
    return sum(issubclass(type(thing), asyncio.BaseEventLoop) for thing in gc.get_objects())


def test_no_event_loop_and_no_timer_comes_with_work(tmp_path: Path) -> None:
    before = _event_loops()
    with running_backend(tmp_path) as running:
        work = running.scripted.start_running()
        assert RUNNING == running.operation(work.operation_id).status
        assert before == _event_loops()
        assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_a_backend_that_has_stopped_leaves_no_thread(tmp_path: Path) -> None:
    before = _threads()
    with running_backend(tmp_path) as running:
        running.ended(running.train(overrides={"model.training.epochs": "1"}))
        running.scripted.start_running()
        running.scripted.finish_all()
    eventually(lambda: not _names(_threads() - before))

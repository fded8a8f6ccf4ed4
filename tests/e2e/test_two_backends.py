"""Two backends as processes on one PostgreSQL, one of which is killed while it works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ktrdr.operations.v1 import operation_pb2
from tests.e2e.test_disk_full import best_known, train
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.processes import KtrdrProcess

pytestmark = pytest.mark.slow


def refusal(process: KtrdrProcess, operation_id: str) -> str:
    return str(best_known(process, operation_id).freshness.refresh_error.reason)


def test_the_other_backend_tells_that_the_owner_is_gone_and_later_that_it_was_restarted(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    shared: dict[str, Any] = {
        "KTRDR_STATE_URL": postgres.new_database(),
        "OPERATIONS_CACHE_TTL": "0.1",
    }
    with KtrdrProcess("backend", tmp_path / "b", **shared) as other:
        with KtrdrProcess("backend", tmp_path / "a", **shared) as owner:
            operation_id = train(owner, "endless")
            eventually(lambda: other.look(operation_id).operation.metrics_count > 2, within=60)
            loaded = other.start_load("theirs").operation_id
            assert operation_pb2.OPERATION_STATUS_COMPLETED == owner.ended(loaded).status
            owner.kill()
            eventually(lambda: refusal(other, operation_id) == "HOST_UNREACHABLE")
            left = best_known(other, operation_id)
        with KtrdrProcess("backend", tmp_path / "a", **shared) as owner:
            eventually(lambda: best_known(other, operation_id).error.reason == "PROCESS_RESTARTED")
            kept = other.look(operation_id).metrics

            assert operation_pb2.OPERATION_STATUS_RUNNING == left.status
            assert list(range(1, len(kept) + 1)) == [metric.step for metric in kept]
            assert [loaded, operation_id] == [
                each.operation_id for each in owner.listed().operations
            ]
            assert (0, 0) == (owner.listed().active_count, other.listed().active_count)

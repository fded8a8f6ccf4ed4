"""A backend in front of a training host, on real sockets."""

from __future__ import annotations

from pathlib import Path

from tests.integration.running import COMPLETED, RUNNING, running_backend
from tests.support.hosts import scripted_host


def test_a_training_runs_on_the_host_and_is_read_through_the_backend(tmp_path: Path) -> None:
    with (
        scripted_host(tmp_path) as host,
        running_backend(
            tmp_path, training_mode="host", TRAINING_HOST_SERVICE_URL=(host.address,)
        ) as running,
    ):
        operation_id = running.train(request_id="abc")
        work = host.work(operation_id)
        work.report_epochs(3)

        operation = running.operation(operation_id)
        assert ("op_training_abc", RUNNING) == (operation.operation_id, operation.status)
        assert [1, 2, 3] == running.epochs(operation_id)
        work.finish()
        assert COMPLETED == running.ended(operation_id).status

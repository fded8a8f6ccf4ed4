import csv

import pytest
from google.protobuf.duration_pb2 import Duration

from backend.cli.failures import ExitCode
from ktrdr.operations.v1 import operation_pb2 as op
from ktrdr.operations.v1 import operations_service_pb2 as service
from tests.unit.cli.command_line import Run
from tests.unit.cli.samples import (
    CANCELLED,
    COMPLETED,
    FAILED,
    ID,
    RUNNING,
    START,
    epoch,
    look,
    operation,
)
from tests.unit.cli.scripted_backend import ScriptedBackend


def test_a_list_has_a_row_per_operation_within_80_columns(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script(
        "ListOperations",
        service.ListOperationsResponse(
            operations=[operation(RUNNING, percentage=50), operation(CANCELLED)],
            total_count=3,
            active_count=1,
            unreachable=["training host"],
        ),
    )
    ended = ktrdr("operations", "list")
    rows = ended.stdout.splitlines()
    assert rows[1].split() == [ID, "training", "running", "50", "%", "2024-01-31", "10:22"]
    assert rows[2].split()[2:4] == ["cancelled", "-"]
    assert max(map(len, rows)) <= 80
    assert "2 of 3 operations; 1 active in all." in ended.stderr
    assert "training host did not answer" in ended.stderr


def test_where_a_list_has_no_room_for_columns_each_operation_is_a_block(
    ktrdr: Run, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    listed = service.ListOperationsResponse(operations=[operation(RUNNING, percentage=50)])
    scripted.script("ListOperations", listed)
    assert [
        ID,
        "  type           training",
        "  status         running",
        "  done           50 %",
        "  created (UTC)  2024-01-31 10:22",
    ] == ktrdr("operations", "list").stdout.splitlines()


def test_operations_that_are_only_last_known_are_marked_and_the_reason_told_once(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    stale = operation(RUNNING)
    stale.freshness.refresh_error.message = "No ktrdr process answers at h:1."
    listed = service.ListOperationsResponse(operations=[operation(RUNNING), stale, stale])
    scripted.script("ListOperations", listed)
    ended = ktrdr("operations", "list")
    statuses = [row.split()[2] for row in ended.stdout.splitlines()[1:]]
    assert ["running", "running?", "running?"] == statuses
    assert 1 == ended.stderr.count("? as last known: No ktrdr process answers at h:1.")


def test_an_empty_list_is_told(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("ListOperations", service.ListOperationsResponse())
    ended = ktrdr("operations", "list")
    assert (ended.stdout, ended.stderr) == ("", "0 operations; 0 active in all.\n")


def test_filters_are_passed_on(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("ListOperations", service.ListOperationsResponse())
    ktrdr("operations", "list", "--status", "failed", "--status", "RUNNING", "--limit", "7")
    ktrdr("operations", "list", "--active", "--type", "training", "--type", "data-loading")
    first, second = scripted.requests["ListOperations"]
    assert (list(first.statuses), first.page_size) == ([FAILED, RUNNING], 7)
    assert second.active_only
    assert list(second.types) == [op.OPERATION_TYPE_TRAINING, op.OPERATION_TYPE_DATA_LOADING]


def test_a_list_in_json_is_one_document(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("ListOperations", service.ListOperationsResponse(operations=[operation()]))
    document = ktrdr("operations", "list", "--format", "json").document
    assert document["operations"][0]["operationId"] == ID


def test_an_operation_is_shown_with_its_age(ktrdr: Run, scripted: ScriptedBackend) -> None:
    running = operation(phase="training", message="Epoch 2/3", percentage=50, left=7.2)
    running.liveness.worker_alive = True
    running.freshness.cached = True
    scripted.script("GetOperation", look(running))
    stdout = ktrdr("operations", "get", ID).stdout
    assert "50.0 %, training, Epoch 2/3, about 8 s left" in stdout
    assert "0.20 s ago (from the bridge, cached)" in stdout
    assert "IBM,GOOG" in stdout
    assert "alive" in stdout


def test_an_operation_of_a_host_is_shown_with_the_way_its_news_came(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    remote = operation()
    remote.metadata["host_service_url"] = "h:50052"
    remote.freshness.source, remote.freshness.cached = op.FRESHNESS_SOURCE_REMOTE, True
    remote.freshness.path.add(
        instance="3f2a9c1b7d4e8a60",
        source=op.FRESHNESS_SOURCE_REMOTE,
        cached=True,
        age=Duration(nanos=200_000_000),
    )
    remote.freshness.path.add(instance="8d1c0e77aa", source=op.FRESHNESS_SOURCE_BRIDGE)
    scripted.script("GetOperation", look(remote))
    stdout = ktrdr("operations", "get", ID).stdout
    assert "as of            0.20 s ago (from its host, cached)" in stdout
    assert "path             3f2a9c1b (the backend): from its host, cached, 0.20 s old" in stdout
    assert "                 8d1c0e77 (its host, h:50052): from the bridge, 0.00 s old" in stdout


def test_all_values_stand_in_one_column_however_long_a_name_is(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    remote = operation()
    remote.metadata["host_operation_id"] = "value"
    remote.metadata["a_name_longer_than_any_other_there_is"] = "value"
    scripted.script("GetOperation", look(remote))
    lines = ktrdr("operations", "get", ID).stdout.splitlines()
    column = lines[0].index(ID)
    assert len("  a_name_longer_than_any_other_there_is ") == column
    assert {" "} == {line[column - 1] for line in lines}
    assert not any(line[column].isspace() for line in lines)


def test_an_operation_of_the_backend_itself_is_shown_without_a_way(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    local = operation()
    local.freshness.path.add(instance="8d1c0e77", source=op.FRESHNESS_SOURCE_BRIDGE)
    scripted.script("GetOperation", look(local))
    assert "8d1c0e77" not in ktrdr("operations", "get", ID).stdout


def test_a_queued_operation_waits_for_a_worker(ktrdr: Run, scripted: ScriptedBackend) -> None:
    queued = operation(status=op.OPERATION_STATUS_PENDING)
    queued.liveness.worker_alive = False
    scripted.script("GetOperation", look(queued))
    stdout = ktrdr("operations", "get", ID).stdout

    assert "waiting for one" in stdout
    assert "gone" not in stdout


def test_an_operation_that_is_only_last_known_is_shown_as_such(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    stale = operation()
    stale.freshness.age.CopyFrom(Duration(seconds=12))
    stale.freshness.refresh_error.message = "The host did not answer."
    stale.liveness.worker_alive = True
    stale.metadata["host_operation_id"] = "host_training_x"
    scripted.script("GetOperation", look(stale))
    stdout = ktrdr("operations", "get", ID).stdout
    assert "Last known, 12 s old: The host did not answer." in stdout
    assert "alive when last seen" in stdout
    assert "host_operation_id host_training_x" in stdout


def test_reading_a_failed_operation_is_no_failure(ktrdr: Run, scripted: ScriptedBackend) -> None:
    failed = operation(FAILED)
    failed.end_time.FromDatetime(START)
    scripted.script("GetOperation", look(failed))
    ended = ktrdr("operations", "get", ID)
    assert ended.exit_code == ExitCode.DONE
    assert "DATA_TOO_SHORT" in ended.stdout
    assert "ended         2024-01-31 10:22:05 UTC" in ended.stdout


def test_a_cancelled_operation_is_shown_with_the_reason(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("GetOperation", look(operation(CANCELLED)))
    assert "wrong seed" in ktrdr("operations", "get", ID).stdout


def test_freshness_bounds_are_passed_on(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetOperation", look(operation(COMPLETED)))
    ktrdr("operations", "get", ID)
    ktrdr("operations", "get", ID, "--refresh")
    ktrdr("operations", "get", ID, "--max-staleness", "0.25", "--format", "json")
    plain, forced, bounded = scripted.requests["GetOperation"]
    assert not plain.force_refresh
    assert not plain.HasField("max_staleness")
    assert forced.force_refresh
    assert bounded.max_staleness == Duration(nanos=250_000_000)


def test_states_and_types_newer_than_the_command_are_shown_as_numbers(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    new = op.Operation.FromString(b"\x10\x63\x18\x62")
    new.freshness.source = op.FRESHNESS_SOURCE_RECORD
    scripted.script("GetOperation", look(new))
    stdout = ktrdr("operations", "get", ID).stdout
    assert "type 99" in stdout
    assert "status_98" in stdout


def test_a_result_of_an_unknown_type_is_named(ktrdr: Run, scripted: ScriptedBackend) -> None:
    tested = op.Operation(operation_id=ID, status=COMPLETED)
    tested.result.type_url = "type.googleapis.com/ktrdr.backtesting.v1.BacktestResult"
    scripted.script("GetOperation", look(tested))
    assert "a ktrdr.backtesting.v1.BacktestResult" in ktrdr("operations", "get", ID).stdout


def test_an_end_without_outcome_is_told(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetOperation", look(op.Operation(operation_id=ID, status=COMPLETED)))
    assert "none was recorded" in ktrdr("operations", "get", ID).stdout


def test_metrics_are_rows_under_one_heading(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetMetrics", service.GetMetricsResponse(metrics=[epoch(1), epoch(2)]))
    rows = ktrdr("operations", "metrics", ID, "--cursor", "3").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["epoch", "1", "2"]
    assert scripted.requests["GetMetrics"][0].cursor == 3


def test_metrics_in_csv_can_be_read_back(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetMetrics", service.GetMetricsResponse(metrics=[epoch(1), epoch(2)]))
    stdout = ktrdr("operations", "metrics", ID, "--format", "csv").stdout
    rows = list(csv.DictReader(stdout.splitlines()))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert float(rows[0]["train_loss"]) == 1.1


def test_metrics_in_json_are_one_document(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script(
        "GetMetrics",
        service.GetMetricsResponse(metrics=[epoch(1)], new_cursor=1, has_more=True),
        service.GetMetricsResponse(metrics=[epoch(2)], new_cursor=2),
    )
    document = ktrdr("operations", "metrics", ID, "--format", "json").document
    assert [metric["step"] for metric in document["metrics"]] == ["1", "2"]


def test_an_operation_without_metrics_is_told(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetMetrics", service.GetMetricsResponse())
    ended = ktrdr("operations", "metrics", ID)
    assert (ended.stdout, ended.stderr) == ("", f"{ID} has no metrics from 0 on.\n")


def test_metrics_that_are_only_last_known_are_told_as_such(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    page = service.GetMetricsResponse(metrics=[epoch(1)], new_cursor=1)
    page.freshness.refresh_error.message = "The host did not answer."
    scripted.script("GetMetrics", page)
    ended = ktrdr("operations", "metrics", ID, "--format", "csv")
    assert ended.stdout.startswith("step,kind")
    assert "As last known: The host did not answer." in ended.stderr

"""What somebody with nothing but `grpcurl` can do."""

from __future__ import annotations

from tests.support.programs import SMALL, Programs

STANDARD = "google.longrunning.Operations"
OPERATIONS = "ktrdr.operations.v1.OperationsService"
TRAINING = "ktrdr.training.v1.TrainingService"


def test_services_and_methods_are_found_without_any_file(programs: Programs) -> None:
    listed = programs.grpcurl("list").stdout.split()
    described = programs.grpcurl("describe", f"{OPERATIONS}.GetOperation").stdout
    standard = programs.grpcurl("describe", f"{STANDARD}.WaitOperation").stdout
    message = programs.grpcurl("describe", "ktrdr.training.v1.TrainingResult").stdout

    assert {OPERATIONS, TRAINING, STANDARD, "grpc.health.v1.Health"} <= set(listed)
    assert "rpc GetOperation" in described
    assert "rpc WaitOperation" in standard
    assert "double baseline_accuracy" in message


def test_health_is_told_overall_and_per_service(programs: Programs) -> None:
    for service in ("", OPERATIONS, TRAINING, STANDARD):
        assert programs.call("grpc.health.v1.Health/Check", service=service) == {
            "status": "SERVING"
        }


def test_a_training_is_started_watched_and_its_typed_result_read(programs: Programs) -> None:
    started = programs.call(
        f"{TRAINING}/StartTraining",
        request_id="grpcurl-1",
        strategy_yaml=SMALL.read_text(),
        symbols=["IBM"],
        timeframes=["1d"],
        seed=7,
    )
    ended = programs.call(
        f"{OPERATIONS}/WaitOperation", operation_id="op_training_grpcurl-1", timeout="60s"
    )
    metrics = programs.call(f"{OPERATIONS}/GetMetrics", operation_id="op_training_grpcurl-1")

    assert started["operation"]["status"] in {
        "OPERATION_STATUS_PENDING",
        "OPERATION_STATUS_RUNNING",
    }
    assert ended["operation"]["status"] == "OPERATION_STATUS_COMPLETED"
    assert ended["operation"]["result"]["@type"].endswith("ktrdr.training.v1.TrainingResult")
    assert ended["operation"]["result"]["seed"] == "7"
    steps = [int(metric["step"]) for metric in metrics["metrics"]]
    assert steps == list(range(1, len(steps) + 1))
    assert int(metrics["newCursor" if "newCursor" in metrics else "new_cursor"]) == len(steps)


def test_bad_input_is_answered_with_every_bad_field_and_creates_nothing(
    programs: Programs,
) -> None:
    before = programs.call(f"{OPERATIONS}/ListOperations")
    refused = programs.grpcurl(
        f"{TRAINING}/StartTraining",
        data={
            "strategy_yaml": "indicators: [",
            "symbols": ["NOPE"],
            "timeframes": ["7d"],
            "start_time": "2012-01-01T00:00:00Z",
            "end_time": "2011-01-01T00:00:00Z",
        },
    )
    after = programs.call(f"{OPERATIONS}/ListOperations")

    assert "InvalidArgument" in refused.stderr
    for field in ("strategy_yaml", "symbols[0]", "timeframes[0]", "end_time"):
        assert f'"field":"{field}"' in refused.stderr
    assert "line 2, column 1" in refused.stderr
    assert before.get("total_count") == after.get("total_count")


def test_an_unknown_operation_is_not_found_with_a_reason_for_programs(programs: Programs) -> None:
    answer = programs.grpcurl(f"{OPERATIONS}/GetOperation", data={"operation_id": "nope"})

    assert "NotFound" in answer.stderr
    assert "OPERATION_NOT_FOUND" in answer.stderr

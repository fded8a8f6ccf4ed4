from backend.cli.client import Backend
from ktrdr.operations.v1 import operation_pb2 as op
from ktrdr.operations.v1 import operations_service_pb2 as service
from ktrdr.training.v1 import models_service_pb2
from tests.unit.cli.samples import ID, epoch, model, operation
from tests.unit.cli.scripted_backend import ScriptedBackend


def test_all_pages_of_metrics_are_read_by_cursor(scripted: ScriptedBackend) -> None:
    scripted.script(
        "GetMetrics",
        service.GetMetricsResponse(metrics=[epoch(1), epoch(2)], new_cursor=2, has_more=True),
        service.GetMetricsResponse(metrics=[epoch(3)], new_cursor=3),
    )
    with Backend(scripted.address) as backend:
        whole = backend.get_metrics(ID, 0)
    assert [metric.step for metric in whole.metrics] == [1, 2, 3]
    assert (whole.new_cursor, whole.has_more) == (3, False)
    assert [request.cursor for request in scripted.requests["GetMetrics"]] == [0, 2]


def test_a_page_of_metrics_that_brings_nothing_ends_the_reading(scripted: ScriptedBackend) -> None:
    scripted.script("GetMetrics", service.GetMetricsResponse(has_more=True))
    with Backend(scripted.address) as backend:
        backend.get_metrics(ID, 0)
    assert len(scripted.requests["GetMetrics"]) == 1


def test_pages_of_operations_are_read_up_to_the_limit(scripted: ScriptedBackend) -> None:
    page = service.ListOperationsResponse(
        operations=[operation(), operation()], unreachable=["host"]
    )
    page.next_page_token = "more"  # noqa: S105 - a page token is no secret
    scripted.script("ListOperations", page)
    with Backend(scripted.address) as backend:
        found = backend.list_operations(
            service.ListOperationsRequest(types=[op.OPERATION_TYPE_TRAINING]), 4
        )
    assert len(found.operations) == 4
    assert list(found.unreachable) == ["host"]
    requests = scripted.requests["ListOperations"]
    assert [(r.page_size, r.page_token) for r in requests] == [(4, ""), (2, "more")]
    assert all(list(r.types) == [op.OPERATION_TYPE_TRAINING] for r in requests)


def test_operations_of_several_pages_say_who_answered(scripted: ScriptedBackend) -> None:
    page = service.ListOperationsResponse(instance="3f2a9c1b", incarnation="8d1c0e77")
    scripted.script("ListOperations", page)
    with Backend(scripted.address) as backend:
        found = backend.list_operations(service.ListOperationsRequest(), 4)
    assert ("3f2a9c1b", "8d1c0e77") == (found.instance, found.incarnation)


def test_pages_of_models_are_read_to_the_last(scripted: ScriptedBackend) -> None:
    first = models_service_pb2.ListModelsResponse(models=[model("a")], unreadable=["x"])
    first.next_page_token = "b"  # noqa: S105 - a page token is no secret
    scripted.script(
        "ListModels",
        first,
        models_service_pb2.ListModelsResponse(models=[model("b")], unreadable=["x", "y"]),
    )
    with Backend(scripted.address) as backend:
        found = backend.list_models(1000)
    assert [m.name for m in found.models] == ["a", "b"]
    assert list(found.unreadable) == ["x", "y"]
    assert [r.page_size for r in scripted.requests["ListModels"]] == [500, 500]


def test_one_wait_lasts_half_a_minute_at_most(scripted: ScriptedBackend) -> None:
    scripted.script("WaitOperation", service.WaitOperationResponse(operation=operation()))
    with Backend(scripted.address) as backend:
        backend.wait_operation(ID, 1000)
    assert scripted.requests["WaitOperation"][0].timeout.seconds == 30

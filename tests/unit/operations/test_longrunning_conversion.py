from __future__ import annotations

import pytest
from google.longrunning import operations_pb2 as lro
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given

from ktrdr.operations.v1 import operation_pb2 as pb
from shared.operations.conversion import view_to_proto
from shared.operations.longrunning_conversion import id_in, to_longrunning
from shared.operations.model import OperationStatus
from shared.operations.views import OperationView
from tests.unit.operations.drawn import VIEWS, WITH_ERROR

S = OperationStatus


def sent(view: OperationView) -> lro.Operation:
    """What a standard client receives of a view."""
    converted = to_longrunning(view_to_proto(view))
    return lro.Operation.FromString(converted.SerializeToString())


def info_in(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """The only detail there is."""
    (packed,) = status.details
    info = error_details_pb2.ErrorInfo()
    assert packed.Unpack(info)
    return info


@given(VIEWS)
def test_nothing_of_an_operation_is_lost(view: OperationView) -> None:
    whole = pb.Operation()

    assert sent(view).metadata.Unpack(whole)
    assert view_to_proto(view) == whole


@given(VIEWS)
def test_it_is_done_with_one_outcome_once_it_has_ended(view: OperationView) -> None:
    status, got = view.operation.status, sent(view)
    outcome = "response" if status is S.COMPLETED else "error" if status in WITH_ERROR else None

    assert (status.terminal, outcome) == (got.done, got.WhichOneof("result"))


@given(VIEWS.filter(lambda view: view.operation.result is not None))
def test_the_response_is_the_packed_result(view: OperationView) -> None:
    got, result = sent(view).response, view.operation.result

    assert result is not None
    assert (result.type_url, result.value) == (got.type_url, got.value)


@given(VIEWS.filter(lambda view: view.operation.error is not None))
def test_the_error_tells_programs_what_the_operations_own_does(view: OperationView) -> None:
    got, error = sent(view).error, view.operation.error
    assert error is not None
    cancelled = view.operation.status is S.CANCELLED
    info = info_in(got)

    assert (code_pb2.CANCELLED if cancelled else error.code) == got.code
    assert error.message == got.message
    assert ("ktrdr", error.reason, error.metadata) == (info.domain, info.reason, info.metadata)


@given(VIEWS)
def test_a_name_leads_back_to_its_operation(view: OperationView) -> None:
    name = sent(view).name

    assert name.startswith("operations/")
    assert view.operation.operation_id == id_in(name)


@pytest.mark.parametrize(
    ("name", "operation_id"),
    [("op_1", "op_1"), ("operations/op_1", "op_1"), ("operations/", ""), ("", "")],
)
def test_a_bare_id_is_a_name_too(name: str, operation_id: str) -> None:
    assert operation_id == id_in(name)

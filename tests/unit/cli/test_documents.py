import json

import pytest

from backend.cli.documents import print_document, to_json
from ktrdr.operations.v1 import operation_pb2 as op
from ktrdr.operations.v1.operations_service_pb2 import ListOperationsResponse
from tests.unit.cli.samples import COMPLETED, epoch, operation


def test_the_result_of_an_operation_is_resolved() -> None:
    result = to_json(operation(COMPLETED))["result"]
    assert result["@type"] == "type.googleapis.com/ktrdr.training.v1.TrainingResult"
    assert result["parameterCount"] == "1688"


def test_fields_at_their_default_are_written_out() -> None:
    assert to_json(op.Operation())["metricsCount"] == "0"


def test_a_result_of_a_type_unknown_here_is_passed_on_unread() -> None:
    unknown = op.Operation(operation_id="x")
    unknown.result.type_url, unknown.result.value = "type.googleapis.com/new.Result", b"\x08\x01"
    document = to_json(unknown)
    assert document["result"] == {"@type": "type.googleapis.com/new.Result", "value": "CAE="}
    assert document["operationId"] == "x"


def test_a_listing_with_a_result_of_a_type_unknown_here_is_passed_on_as_well() -> None:
    unknown = op.Operation(operation_id="x")
    unknown.result.type_url, unknown.result.value = "type.googleapis.com/new.Result", b"\x08\x01"
    listing = ListOperationsResponse(operations=[unknown, operation(COMPLETED)], total_count=2)
    document = to_json(listing)
    assert ["operations", 2] == [next(iter(document)), document["totalCount"]]
    first, second = document["operations"]
    assert first == to_json(unknown)
    assert second["result"]["parameterCount"] == "1688"


def test_a_document_with_nan_can_be_parsed_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    print_document(epoch(1, float("nan")))
    assert json.loads(capsys.readouterr().out)["values"]["val_loss"] == "NaN"

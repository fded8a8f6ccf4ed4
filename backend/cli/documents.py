"""Messages as JSON documents on stdout, for scripts."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from ktrdr.marketdata.v1 import bar_pb2
from ktrdr.operations.v1 import operation_pb2, operations_service_pb2
from ktrdr.training.v1 import training_pb2

_RESULT_TYPES = (training_pb2.TrainingResult, bar_pb2.DataLoadResult)
"""The messages an operation's Any may hold; named here so that they are loaded."""


def print_document(document: Message | dict[str, Any]) -> None:
    """Print one JSON document: a message in the JSON form of protobuf, or a mapping."""
    content = document if isinstance(document, dict) else to_json(document)
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
    sys.stdout.flush()


def to_json(message: Message) -> dict[str, Any]:
    """A message as protobuf's JSON, with fields at their default written out."""
    if isinstance(message, operation_pb2.Operation):
        return _operation_to_json(message)
    if isinstance(message, operations_service_pb2.ListOperationsResponse):
        return _listing_to_json(message)
    return _to_dict(message)


def _listing_to_json(
    listing: operations_service_pb2.ListOperationsResponse,
) -> dict[str, Any]:
    bare = operations_service_pb2.ListOperationsResponse()
    bare.CopyFrom(listing)
    bare.ClearField("operations")
    operations = [_operation_to_json(operation) for operation in listing.operations]
    others = _to_dict(bare)
    del others["operations"]
    return {"operations": operations, **others}


def _operation_to_json(operation: operation_pb2.Operation) -> dict[str, Any]:
    try:
        return _to_dict(operation)
    except TypeError:
        # The result is of a type made after this command: pass it on unread.
        bare = operation_pb2.Operation()
        bare.CopyFrom(operation)
        bare.ClearField("result")
        value = base64.b64encode(operation.result.value).decode()
        return {**_to_dict(bare), "result": {"@type": operation.result.type_url, "value": value}}


def _to_dict(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True
    )
    return document

"""What others build on, by name: a change of it is a change of this list, and of CHANGELOG.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from ktrdr.marketdata.v1 import market_data_service_pb2
from ktrdr.operations.v1 import operations_service_pb2
from ktrdr.training.v1 import (
    models_service_pb2,
    training_host_service_pb2,
    training_service_pb2,
)

ROOT = Path(__file__).parents[2]
SERVICES = (
    market_data_service_pb2,
    operations_service_pb2,
    models_service_pb2,
    training_host_service_pb2,
    training_service_pb2,
)
METHODS = {
    "ktrdr.marketdata.v1.MarketDataService": {"ListSeries", "ReadBars", "StartDataLoad"},
    "ktrdr.operations.v1.OperationsService": {
        "CancelOperation",
        "DeleteOperation",
        "GetMetrics",
        "GetOperation",
        "ListOperations",
        "WaitOperation",
    },
    "ktrdr.training.v1.ModelsService": {"GetModel", "ListModels"},
    "ktrdr.training.v1.TrainingHostService": {"GetTrainingStatus"},
    "ktrdr.training.v1.TrainingService": {"StartTraining"},
}
CLASSES = {
    "shared/operations/bridge.py ProgressBridge": {
        "cancel",
        "get_metrics",
        "get_status",
        "snapshot",
    },
    "shared/training/bridge.py TrainingProgressBridge": {
        "on_batch",
        "on_cancellation",
        "on_complete",
        "on_epoch",
        "on_fuzzy_generation",
        "on_indicator_computation",
        "on_phase",
        "on_preparation_phase",
        "on_symbol_processing",
    },
    "shared/operations/remote.py RemoteOperationStub": {
        "begin_get_operation",
        "begin_list_operations",
        "begin_read_operation",
        "begin_wait_operation",
        "cancel_operation",
        "close",
        "get_metrics",
        "get_operation",
        "list_operations",
        "read_operation",
        "target",
        "wait_operation",
    },
    "shared/operations/service.py OperationsService": {
        "advertise",
        "assign_owner",
        "begin_operation",
        "cancel_operation",
        "complete_operation",
        "delete_operation",
        "end_unfinished",
        "fail_operation",
        "get_at_once",
        "get_metrics",
        "get_operation",
        "interrupt_work",
        "list_operations",
        "monitor",
        "note_told",
        "open_operations",
        "owner",
        "recover",
        "refuse_starts",
        "register_local_bridge",
        "register_remote_stub",
        "run_operation",
        "start_operation",
        "unreachable",
        "wait_in_place",
        "wait_operation",
    },
}
GONE = re.compile(r"metrics_callback|progress_callback|HostSessionManager")
"""What pushed in the system before this one, and must not come back."""


def public_names(place: str) -> set[str]:
    """The public methods and attributes of a class, read from its source."""
    file, _, name = place.partition(" ")
    (found,) = [
        node
        for node in ast.parse((ROOT / file).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    methods = {node.name for node in found.body if isinstance(node, ast.FunctionDef)}
    attributes = set(re.findall(r"self\.([a-z]\w*)(?:: [^=\n]+)? = ", ast.unparse(found)))
    return {each for each in methods | attributes if not each.startswith("_")}


def test_the_methods_of_the_contract_are_these() -> None:
    served = {
        service.full_name: {method.name for method in service.methods}
        for module in SERVICES
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert METHODS == served


def test_the_classes_that_others_build_on_offer_these() -> None:
    assert CLASSES == {place: public_names(place) for place in CLASSES}


def test_nothing_pushes() -> None:
    code = [
        path
        for folder in ("shared", "backend", "training_host", "ib_host", "protos/ktrdr")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".proto"}
    ]
    assert len(code) > 150
    assert [] == [path.name for path in code if GONE.search(path.read_text("utf-8"))]

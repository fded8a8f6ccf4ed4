from __future__ import annotations

from shared.operations.longrunning_servicer import SERVICE_NAME, longrunning_service
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.service import OperationsService
from shared.operations.servicer import OperationsServicer
from tests.support.contract import STANDARD
from tests.unit.operations.fakes import ME

SERVICE = longrunning_service(OperationsServicer(OperationsService(MemoryOperationStore(), ME)))
WRITES = {"CancelOperation", "DeleteOperation"}


def test_the_name_is_the_standards() -> None:
    assert STANDARD.full_name == SERVICE_NAME == SERVICE.name


def test_every_method_is_said_to_read_or_to_write() -> None:
    methods = {method.name for method in STANDARD.methods}

    assert methods - WRITES == SERVICE.reads


def test_every_method_of_the_standard_is_served() -> None:
    served = vars(type(SERVICE.servicer))

    assert set() == {method.name for method in STANDARD.methods} - served.keys()


def test_waits_are_admitted_as_the_contracts_own_are() -> None:
    assert {"WaitOperation": "wait"} == SERVICE.classes

"""A process with very many records and nothing to do."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection

from pydantic import SecretStr
from sqlalchemy import insert

from shared.operations.database import open_database, open_store
from shared.operations.memory_store import MemoryOperationStore
from shared.operations.model import (
    Operation,
    OperationRecord,
    OperationStatus,
    OperationType,
    Owner,
    Progress,
)
from shared.operations.service import OperationsService
from shared.operations.servicer import OperationsServicer, operations_service
from shared.operations.sql_records import record_to_row
from shared.operations.sql_schema import OPERATIONS
from shared.operations.store import OperationStore
from shared.process import SWITCH_INTERVAL
from shared.rpc.server import RpcServer, ServerLimits
from shared.settings import ProcessSettings

MEMORY = "memory://"
SERVICE = "bench"
ME = Owner("a" * 32, "b" * 32, "127.0.0.1:50051")
DAY = datetime(2026, 1, 1, tzinfo=UTC)
"""When the first operation was created."""
ENDED = (OperationStatus.COMPLETED, OperationStatus.FAILED, OperationStatus.CANCELLED)


def serve_records(told: Connection, url: str, count: int) -> None:
    """Serve the operations of a store at `url` that holds `count` finished ones."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    store = filled_store(url, count)
    service = operations_service(OperationsServicer(OperationsService(store, ME)))
    server = RpcServer([service], "127.0.0.1:0", ServerLimits(), ME.instance_id)
    address = server.bind()
    server.start()
    told.send(address)
    told.recv()
    server.stop(0.0)


def filled_store(url: str, count: int) -> OperationStore:
    """A store at `url`, a new one, with so many records."""
    records = map(record, range(count))
    if url == MEMORY:
        memory = MemoryOperationStore()
        for each in records:
            memory.create(each)
        return memory
    settings = ProcessSettings(state_url=SecretStr(url))
    store = open_store(settings, SERVICE)
    engine = open_database(settings, SERVICE)
    with engine.connect() as connection:  # one by one, each on the disk, would take minutes
        connection.exec_driver_sql("BEGIN")
        connection.execute(insert(OPERATIONS), [record_to_row(SERVICE, each) for each in records])
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
    return store


def record(number: int, status: OperationStatus | None = None) -> OperationRecord:
    """An operation, as many as are wanted; finished, one way or another, unless told otherwise."""
    status = status or ENDED[number % 3]
    at = DAY + timedelta(seconds=number)
    operation = Operation(
        operation_id=f"op_training_{at:%Y%m%d_%H%M%S}_{number:08x}",
        type=(OperationType.TRAINING, OperationType.DATA_LOADING)[number % 2],
        status=status,
        create_time=at,
        update_time=at,
        progress=Progress(100.0, "Epoch 100/100", "training", 100, 100, context={"symbol": "IBM"}),
        metadata={"symbols": "IBM,GOOG", "timeframes": "1d", "strategy": "momentum"},
        end_time=at if status.terminal else None,
    )
    return OperationRecord(operation, ME, f"request-{number}", "c" * 64)

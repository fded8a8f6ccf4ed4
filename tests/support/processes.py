"""ktrdr processes for tests that kill them: started, ready, called through the stubs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc

from backend.program import Program, ProgramError
from ktrdr.marketdata.v1 import market_data_service_pb2 as data_pb
from ktrdr.marketdata.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from ktrdr.operations.v1 import operation_pb2
from ktrdr.operations.v1 import operations_service_pb2 as pb
from ktrdr.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

CALL = 10.0
"""Seconds that a call may take."""
TERMINAL = {
    operation_pb2.OPERATION_STATUS_COMPLETED,
    operation_pb2.OPERATION_STATUS_FAILED,
    operation_pb2.OPERATION_STATUS_CANCELLED,
}


class KtrdrProcess(Program):
    """One process with its files in `home`; `crash` is (number, when) of its own death."""

    def __init__(
        self, name: str, home: Path, *, crash: tuple[int, str] | None = None, **settings: str
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        log = home / f"{name}.log"
        crashing = () if crash is None else ("tests.support.crashing", name, *map(str, crash))
        try:
            super().__init__(name, home, log, settings, command=crashing)
        except ProgramError as error:
            error.add_note(log.read_text())
            raise
        self.channel = grpc.insecure_channel(self.address)
        self.operations = OperationsServiceStub(self.channel)
        self.data = MarketDataServiceStub(self.channel)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def end(self) -> None:
        """Stop it in order and give everything back."""
        self.channel.close()
        super().end()

    # ------------------------------------------------------------------- calls

    def start_load(
        self, request_id: str, symbols: Sequence[str] = ("IBM", "GOOG")
    ) -> operation_pb2.Operation:
        """Start a load of daily bars, all of them anew."""
        request = data_pb.StartDataLoadRequest(
            request_id=request_id,
            symbols=symbols,
            timeframe="1d",
            mode=data_pb.LOAD_MODE_FULL,
        )
        operation: operation_pb2.Operation = self.data.StartDataLoad(
            request, timeout=CALL
        ).operation
        return operation

    def look(self, operation_id: str) -> pb.GetOperationResponse:
        """The operation and all its metrics, read now."""
        request = pb.GetOperationRequest(
            operation_id=operation_id, force_refresh=True, metrics_cursor=0
        )
        answer: pb.GetOperationResponse = self.operations.GetOperation(request, timeout=CALL)
        return answer

    def ended(self, operation_id: str) -> operation_pb2.Operation:
        """Wait for an operation's end and return it."""
        request = pb.WaitOperationRequest(operation_id=operation_id)
        operation: operation_pb2.Operation = self.operations.WaitOperation(
            request, timeout=60
        ).operation
        assert operation.status in TERMINAL, operation
        return operation

    def listed(self, *, active_only: bool = False) -> pb.ListOperationsResponse:
        """All operations, or all that are open."""
        request = pb.ListOperationsRequest(active_only=active_only, page_size=500)
        page: pb.ListOperationsResponse = self.operations.ListOperations(request, timeout=CALL)
        return page

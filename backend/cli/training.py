"""Starting a training, once, and following it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from backend.cli.client import Backend
from backend.cli.console import note, stdout_console
from backend.cli.dates import Period
from backend.cli.documents import print_document
from backend.cli.failures import CommandError, ExitCode, RpcFailedError
from backend.cli.follow import follow, how_to_return
from backend.cli.options import Format
from backend.cli.pace import Pace
from ktrdr.operations.v1 import operation_pb2
from ktrdr.training.v1 import training_service_pb2

_OPTIONS = {
    "request_id": "--request-id",
    "strategy_yaml": "--strategy",
    "symbols": "--symbols",
    "timeframes": "--timeframes",
    "start_time": "--start-date",
    "end_time": "--end-date",
    "seed": "--seed",
    "overrides": "--set",
}
"""The option behind each field of the request."""


@dataclass(frozen=True, slots=True)
class Order:
    """A training as asked for on the command line."""

    strategy_yaml: str
    symbols: tuple[str, ...]
    """Empty: the strategy's."""
    timeframes: tuple[str, ...]
    """Empty: the strategy's."""
    period: Period
    seed: int | None
    overrides: Mapping[str, str]
    """Values by dotted path."""
    request_id: str
    """Empty: make one up."""


def train(
    order: Order, address: str, pace: Pace, *, detach: bool, plot: Path | None, output: Format
) -> ExitCode:
    """Start a training and follow it, or leave it to itself."""
    with Backend(address) as backend:
        operation = start(backend, build_request(order), pace)
        if detach:
            _print_started(operation, address, output)
            return ExitCode.DONE
        if output is Format.TABLE:
            stdout_console().print(f"Started {operation.operation_id}\n", soft_wrap=True)
        return follow(backend, operation, pace, plot=plot, output=output, known=True)


def build_request(order: Order) -> training_service_pb2.StartTrainingRequest:
    """The order as a request that can be repeated without starting anything twice."""
    request = training_service_pb2.StartTrainingRequest(
        request_id=order.request_id or uuid4().hex[:16],
        strategy_yaml=order.strategy_yaml,
        symbols=order.symbols,
        timeframes=order.timeframes,
        seed=order.seed,
        overrides=dict(order.overrides),
    )
    if order.period.start:
        request.start_time.FromDatetime(order.period.start)
    if order.period.end:
        request.end_time.FromDatetime(order.period.end)
    return request


def start(
    backend: Backend, request: training_service_pb2.StartTrainingRequest, pace: Pace
) -> operation_pb2.Operation:
    """Start the training; asked again once if the backend was unavailable.

    Raises CommandError with the fields of the request as options.
    """
    try:
        try:
            return backend.start_training(request)
        except RpcFailedError as error:
            if error.status != "UNAVAILABLE":
                raise
            pace.pause(max(pace.interval, error.retry_after))
            return backend.start_training(request)
    except RpcFailedError as error:
        raise _in_options(error, request.request_id) from error
    except KeyboardInterrupt as error:
        raise CommandError(
            "interrupted while the training was being started; it may have been.",
            exit_code=ExitCode.INTERRUPTED,
            hint=_repeat_hint(request.request_id),
        ) from error


def _in_options(error: RpcFailedError, request_id: str) -> CommandError:
    """The error with the command's options beside the request's fields."""
    hint = error.hint
    if error.status == "DEADLINE_EXCEEDED":
        hint = _repeat_hint(request_id)
    return CommandError(
        error.message,
        exit_code=error.exit_code,
        details=[_with_option(detail) for detail in error.details],
        hint=hint,
    )


def _with_option(detail: str) -> str:
    path, colon, text = detail.partition(":")
    option = _OPTIONS.get(path.split(".")[0].split("[")[0])
    return f"{path} ({option}){colon}{text}" if option else detail


def _repeat_hint(request_id: str) -> str:
    return (
        f"Repeat the command with --request-id {request_id}: it finds the training or starts it, "
        "and never starts it twice."
    )


def _print_started(operation: operation_pb2.Operation, address: str, output: Format) -> None:
    if output is Format.JSON:
        print_document(operation)
    else:
        stdout_console().print(f"Started {operation.operation_id}", soft_wrap=True)
        note(how_to_return(operation.operation_id, address))

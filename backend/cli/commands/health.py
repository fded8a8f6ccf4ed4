"""`ktrdr health`: whether a process serves."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from backend.cli.failures import ExitCode
from backend.cli.options import BackendOption, Format, FormatOption

DEADLINE = 3.0
"""Seconds within which a process that serves has answered."""


def health(
    service: Annotated[
        str, typer.Option(metavar="NAME", help="Ask about this service only, by its full name.")
    ] = "",
    output: FormatOption = Format.TABLE,
    backend: BackendOption = "",
) -> None:
    """Ask whether a process serves: the backend, or another whose address you give.

    Exit code 0: it serves, 1: it does not, 4: it cannot be reached.
    """
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from backend.cli.connection import Connection
    from backend.cli.documents import print_document

    request = health_pb2.HealthCheckRequest(service=service)
    with Connection(backend) as connection:
        stub: Any = health_pb2_grpc.HealthStub(connection.channel)
        answer = connection.call(stub.Check, request, DEADLINE)
    serves = answer.status == answer.SERVING
    if output is Format.JSON:
        print_document(answer)
    else:
        typer.echo(f"{_what(backend, service)} {'serves' if serves else 'does not serve'}.")
    raise typer.Exit(ExitCode.DONE if serves else ExitCode.FAILED)


def _what(address: str, service: str) -> str:
    return f"{service} at {address}" if service else f"The process at {address}"

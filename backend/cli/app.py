"""The `ktrdr` command: its groups, and the one place where errors end it."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from backend.cli.commands import data, models, operations, strategies
from backend.cli.commands.health import health
from backend.cli.failures import CommandError, ExitCode
from backend.cli.options import ADDRESS_VARIABLE, DEFAULT_ADDRESS
from backend.cli.pace import Pace
from backend.cli.tracing import tracing


class ErrorTellingGroup(TyperGroup):
    """A command group that ends a failed command with a message instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CommandError as error:
            _complain(error.text())
            raise typer.Exit(error.exit_code) from error
        except UnicodeEncodeError as error:
            _complain(
                f"Error: {error.object[error.start : error.end]!r} cannot be sent or shown as "
                "UTF-8; write it in UTF-8, in a UTF-8 locale."
            )
            raise typer.Exit(ExitCode.USAGE) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # typer ends quietly when the reader has gone
            _complain(f"Error: the output could not be written ({error.strerror}).")
            raise typer.Exit(ExitCode.FAILED) from error


app = typer.Typer(
    name="ktrdr",
    cls=ErrorTellingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train trading models and watch the work while it runs.",
    epilog="In the environment: KTRDR_BACKEND_ADDRESS; KTRDR_TLS_CA, whom to trust, for TLS; "
    "KTRDR_TLS_CERT and KTRDR_TLS_KEY, if a certificate is asked for; KTRDR_TOKEN_FILE, the file "
    "of your token. "
    "Exit codes: 0 done, 1 failed, 2 usage, 3 cancelled, 4 backend unreachable, "
    "5 still running when a wait's time was up, 130 interrupted before that was known. "
    "Ctrl-C leaves a watch with 0; the work goes on.",
)
app.add_typer(data.app, name="data", help="Load market data and look at it.")
app.add_typer(models.app, name="models", help="Train models and look at those there are.")
app.add_typer(operations.app, name="operations", help="Follow work, stop it, look after it.")
app.add_typer(strategies.app, name="strategies", help="Check strategy files.")
app.command()(health)


@app.callback()
def root(
    context: typer.Context,
    backend: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", envvar=ADDRESS_VARIABLE, help="Where the backend listens."
        ),
    ] = DEFAULT_ADDRESS,
) -> None:
    """Train trading models and watch the work while it runs."""
    # The option is read by options.resolve_address; every command has it, too.
    del backend
    traced = tracing()
    if traced is not None:
        context.with_resource(traced.command(f"ktrdr {context.invoked_subcommand}"))


def main(arguments: Sequence[str] | None = None, *, pace: Pace | None = None) -> None:
    """Run the command line and leave with its exit code.

    Args:
        arguments: What was typed after `ktrdr`; None: the process's own.
        pace: How time passes between looks; tests pass their own.
    """
    if cast("object", sys.stdout) is None:  # as Python has it if its caller closed it
        _complain("Error: the standard output is closed; send it to a file or to /dev/null.")
        raise SystemExit(ExitCode.FAILED)
    for stream in (sys.stdout, sys.stderr):
        _show_what_it_can(stream)
    # gRPC's own account of a failed handshake; the command's is a sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    app(None if arguments is None else list(arguments), prog_name="ktrdr", obj=pace or Pace())


def _show_what_it_can(stream: object) -> None:
    """Have an output put a question mark for what it cannot show, instead of failing.

    UTF-8 shows everything; what is wrong there is a word that was typed.
    """
    if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
        stream.reconfigure(errors="replace")


def _complain(text: str) -> None:
    # With `err` alone typer writes UTF-8 where the terminal shows ASCII.
    typer.echo(text, file=sys.stderr, err=True)

"""The life of a serving process: say when ready, run until told to stop, stop in order."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from socket import gethostname
from time import monotonic
from types import FrameType

from shared.monitoring.exposure import exposed
from shared.monitoring.telemetry import Telemetry
from shared.open_files import make_room_for
from shared.operations.service import OperationsService
from shared.operations.worker_pool import WorkerPool
from shared.rpc.errors import KtrdrError
from shared.rpc.host_channels import HostChannels
from shared.rpc.server import RpcServer
from shared.settings import ProcessSettings, SettingsError

logger = logging.getLogger("ktrdr.process")

SWITCH_INTERVAL = 0.0005
"""Seconds a busy Python thread may hold the interpreter before an RPC gets its turn.

At the default of 5 ms one such thread moves the median answer from below a
millisecond to tens of milliseconds.
"""
LAST_LOOK = 1.5
"""Seconds watchers get to come back once more and see how their operations ended."""
_INTERRUPT_GRACE = 3.0
"""Seconds interrupted work gets to notice; it looks once per batch."""


@dataclass(frozen=True, slots=True)
class Process:
    """The parts of a process that somebody has to start and stop."""

    server: RpcServer
    operations: OperationsService
    pools: tuple[WorkerPool, ...]
    """Its own workers; a process that runs no work itself has none."""
    channels: HostChannels
    """To other processes that it asks."""

    def close(self) -> None:
        """Close what leads to other processes; the server has been stopped."""
        self.channels.close()


def guarded(main: Callable[[], None], arguments: Sequence[str] = ()) -> int:
    """Run a process's main; return its exit code, with errors as sentences.

    `arguments` are those of a command line that takes none: one that is left
    unread would seem to have been heeded.
    """
    if arguments:
        text = (
            f"{' '.join(arguments)!r} is not taken, nor any other argument. Settings are variables "
            "of the environment, such as KTRDR_HOME; ARCHITECTURE.md lists them all."
        )
        print(f"Cannot start: {text}", file=sys.stderr)  # noqa: T201  # before logging is set up
        return 2
    try:
        main()
    except SettingsError as error:
        print(f"Cannot start; these settings need mending:\n{error}", file=sys.stderr)  # noqa: T201  # before logging is set up
        return 2
    except KtrdrError as error:
        print(f"Cannot start: {error.message}", file=sys.stderr)  # noqa: T201  # as above
        return 2
    return 0


def run(
    name: str, process: Process, settings: ProcessSettings, address: str, telemetry: Telemetry
) -> None:
    """Serve until told to stop, let others read what is counted meanwhile, and close all.

    `address` is where the settings say that it listens.
    """
    try:
        with exposed(settings, address, telemetry, process.operations, process.pools):
            serve_until_stopped(
                name,
                process.server,
                process.operations,
                process.pools,
                grace=settings.shutdown_grace,
                advertised=settings.advertise_address,
            )
    finally:
        process.close()
        telemetry.close()


def serve_until_stopped(
    name: str,
    server: RpcServer,
    operations: OperationsService,
    pools: Sequence[WorkerPool],
    *,
    grace: float,
    advertised: str | None = None,
) -> None:
    """Serve, print one line with the real address, and stop on SIGTERM or SIGINT.

    `advertised` is where others reach it, if that is not where it listens.
    """
    with _stop_signals() as wait_for_signal:
        sys.setswitchinterval(SWITCH_INTERVAL)
        make_room_for(server.connections)
        address = server.bind()
        operations.advertise(advertised or reachable(address))
        operations.recover()
        _set_aside_what_is_loaded()
        server.start()
        print(f"{name} ready on {address}", flush=True)  # noqa: T201  # the line starters wait for
        wait_for_signal()
    if not stop(server, operations, pools, grace=grace):
        logger.warning("Some threads did not end; leaving without them")
        logging.shutdown()
        # The interpreter would wait for the threads of calls without end, and
        # abort if a worker is in native code, importing torch say, as it ends.
        os._exit(0)


def _set_aside_what_is_loaded() -> None:
    """Spare later garbage collections what has been loaded, which stays.

    A process that serves has more than a hundred thousand such objects. Each time all
    of them are looked through, every thread stands still, for 80 ms on a slow machine.
    """
    gc.collect()  # what is garbage now would be kept as well
    gc.freeze()


def reachable(address: str) -> str:
    """Where others reach a process that listens at `address`, if need be by the machine's name."""
    host, _, port = address.rpartition(":")
    return f"{gethostname()}:{port}" if host in {"0.0.0.0", "[::]"} else address  # noqa: S104  # compared


@contextmanager
def _stop_signals() -> Iterator[Callable[[], None]]:
    """Take SIGTERM and SIGINT; give the call that returns once one has come, also if before.

    The system may hand a signal to any thread, while Python runs handlers on
    the main one alone, which would go on waiting. So it waits for the byte that
    every signal leaves in a pipe, whichever thread it finds.
    """
    told = False

    def tell(_signal: int, _frame: FrameType | None) -> None:
        # One is enough. The interpreter gives handlers up as it ends; one more
        # would then make an orderly end look like a crash.
        nonlocal told
        _on_stop_signals(signal.SIG_IGN)
        told = True

    def wait() -> None:
        while not told:
            os.read(came, 1)

    came, wake = os.pipe()
    os.set_blocking(wake, False)
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    _on_stop_signals(tell)
    try:
        yield wait
    finally:
        signal.set_wakeup_fd(before)
        os.close(wake)
        os.close(came)


def _on_stop_signals(action: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, action)
    signal.signal(signal.SIGINT, action)


def stop(
    server: RpcServer, operations: OperationsService, pools: Sequence[WorkerPool], *, grace: float
) -> bool:
    """End in order: no new work, let the rest finish, record what could not, stop serving.

    Reads are served to the end, so that watchers see how their operations went.
    False if workers or calls are left that do not end.
    """
    logger.info("Stopping: no new work; running work has %.1f s to finish", grace)
    server.announce_stopping()
    watched = operations.refuse_starts()
    at_rest = _end_work(pools, operations, grace)
    operations.end_unfinished()
    if watched:
        threading.Event().wait(LAST_LOOK)
    ended = server.stop(1.0)
    logger.info("Stopped")
    return ended and at_rest


def _end_work(pools: Sequence[WorkerPool], operations: OperationsService, grace: float) -> bool:
    """Let running work finish or interrupt it; False if a worker goes on regardless."""
    for pool in pools:
        pool.close()
    if _joined(pools, grace):
        return True
    operations.interrupt_work()
    if _joined(pools, _INTERRUPT_GRACE):
        return True
    logger.warning("Some workers did not stop; their operations end PROCESS_STOPPED")
    return False


def _joined(pools: Sequence[WorkerPool], seconds: float) -> bool:
    """Whether all workers of all pools end within the time."""
    until = monotonic() + seconds
    joined = [pool.join(max(0.0, until - monotonic())) for pool in pools]
    return all(joined)

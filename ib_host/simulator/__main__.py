"""`python -m ib_host.simulator`: a TWS without an account, until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

from ib_host.simulator.faults import Fault, FaultPlan, parse_fault
from ib_host.simulator.pacing import UNPACED, PacingRules
from ib_host.simulator.server import TwsSimulator
from ib_host.simulator.source import FrameHistory
from shared.logs import configure_logging
from shared.marketdata.csv_folder import CsvFolder
from shared.process import guarded
from shared.settings import SettingsError

PACING = {
    "real": PacingRules(),
    "all": PacingRules(paces_all_bars=True),
    "off": UNPACED,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the embedded sample, or a folder of CSV files, until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    configure_logging(options.log_level, "text")
    simulator = TwsSimulator(
        None if options.csv is None else csv_history(options.csv),
        host=options.host,
        port=options.port,
        rules=PACING[options.pacing],
        faults=FaultPlan(*options.fault),
    )
    told: SimpleQueue[None] = SimpleQueue()  # unlike an Event, safe in a signal's handler

    def tell(_signal: int, _frame: FrameType | None) -> None:
        told.put(None)

    signal.signal(signal.SIGTERM, tell)
    signal.signal(signal.SIGINT, tell)
    with simulator:
        print(f"simulator ready on {simulator.address}", flush=True)  # noqa: T201  # the line starters wait for
        told.get()


def csv_history(folder: Path) -> FrameHistory:
    """Read all series of a folder, so that a bad file is known at the start.

    Raises SettingsError if there are none, CsvUnreadableError for a bad one.
    """
    source = CsvFolder(folder)
    series = source.series()
    if not series:
        raise SettingsError(
            f"--csv: {folder} has no bars; name a folder of files such as IBM_5m.csv"
        )
    return FrameHistory({each: source.read(*each, None, None) for each in series})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ib_host.simulator",
        description="A TWS without an account: serves bars over TWS's protocol.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument(
        "--port", type=_port, default=4002, help="0 means any free one (%(default)s)"
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FOLDER",
        help="serve its files, SYMBOL_timeframe.csv, instead of the embedded sample",
    )
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="PLACE=EFFECT",
        help="what is to go wrong, such as bars@2=hang; may be given several times",
    )
    parser.add_argument(
        "--pacing",
        choices=PACING,
        default="real",
        help="which bars the pacing rules hold for: up to 30 seconds as with IB, all, none",
    )
    parser.add_argument(
        "--log-level",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        default="WARNING",
        help="least severity that is logged, to stderr (%(default)s)",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} must be 0 to 65535; 0 means any free port")
    return int(text)


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(guarded(main))

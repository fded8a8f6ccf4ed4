"""The demo: real processes, a real training, watched through the `ktrdr` command.

Starts `python -m backend` on a free port, trains the demo strategy on real IBM
and GOOG daily prices, and stops what it has started, however it goes. With
`--hosts` the training runs in `python -m training_host`, another process. With
`--data` the prices are first loaded by `python -m ib_host` from a simulated IB
gateway, shown, and trained on. With `--tls` all of them talk over TLS, show each
other certificates, and let in who has a token. Models, the picture and the logs
stay in `.ktrdr-demo`.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from backend.program import ROOT, Program, ProgramError, clean_environment

STRATEGY = Path("strategies/momentum_demo.yaml")
HOME = Path(".ktrdr-demo")
DATE = "2013-01-28"
"""The first day that the demo shows of what it has loaded."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What stands before the processes, in variables."""

    processes: Mapping[str, str] = field(default_factory=dict)
    command: Mapping[str, str] = field(default_factory=dict)


NOBODY = Guard()
"""Plaintext; everybody is let in."""


def tls_guard(home: Path) -> Guard:
    """TLS on both sides and tokens, made for this run."""
    from backend.dev_certs import make_dev_certs

    made = make_dev_certs(home / "certs")
    print(f"TLS is on; certificates and tokens are in {_short(made.folder)}.", flush=True)
    return Guard(made.mutual_process, made.mutual_client)


@contextmanager
def running_backend(home: Path, guard: Guard = NOBODY) -> Iterator[str]:
    """Run a backend whose files are in `home`; give its address, stop it at the end."""
    with _started("backend", home, home / "backend.log", guard) as backend:
        yield backend.address


@contextmanager
def running_on_a_host(home: Path, guard: Guard = NOBODY) -> Iterator[str]:
    """Run a training host, and a backend that trains on it; give the backend's address."""
    log = home / "training_host.log"
    with _started("training_host", home / "training_host", log, guard) as host:
        print(f"A training host is running on {host.address}.", flush=True)
        on_host = {"KTRDR_TRAINING_MODE": "host", "TRAINING_HOST_SERVICE_URL": host.address}
        with _backend(home, guard, on_host) as backend:
            yield backend.address


@contextmanager
def running_on_ib(home: Path, guard: Guard = NOBODY) -> Iterator[str]:
    """Run an IB host with a simulated gateway, and a backend that has its bars from there.

    Give the backend's address.
    """
    simulated = {"KTRDR_IB_GATEWAY": "simulator"}
    with _started("ib_host", home / "ib_host", home / "ib_host.log", guard, **simulated) as host:
        print(f"An IB host with a simulated gateway is running on {host.address}.", flush=True)
        on_host = {"KTRDR_DATA_SOURCE": "ib", "IB_HOST_SERVICE_URL": host.address}
        with _backend(home, guard, on_host) as backend:
            yield backend.address


def _backend(home: Path, guard: Guard, settings: Mapping[str, str]) -> Program:
    """A backend whose files are in a folder of its own."""
    return _started("backend", home / "backend", home / "backend.log", guard, **settings)


def _started(name: str, home: Path, log: Path, guard: Guard, /, **settings: str) -> Program:
    """A program behind its guard; Ctrl-C is for the demo, which then stops it in order."""
    return Program(name, home, log, {**guard.processes, **settings}, own_session=True)


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the demos there are."""

    serving: Callable[[Path, Guard], AbstractContextManager[str]]
    """Runs its processes, with files in a folder; gives the backend's address."""
    who: str
    """What is stopped at its end."""
    loads: bool = False
    """Whether it begins with a load."""


PLAIN = Kind(running_backend, "The backend has been")
HOSTS = Kind(running_on_a_host, "Backend and training host have been")
DATA = Kind(running_on_ib, "Backend and IB host have been", loads=True)


def ktrdr(*arguments: str, address: str, guard: Guard = NOBODY) -> int:
    """Print and run a `ktrdr` command; return its exit code."""
    command = [*arguments, "--backend", address]
    print("$ " + " ".join(["ktrdr", *command]), flush=True)
    program = str(Path(sys.executable).with_name("ktrdr"))
    return subprocess.run(  # noqa: S603  # our own program
        [program, *command], cwd=ROOT, env={**clean_environment(), **guard.command}, check=False
    ).returncode


def load(address: str, guard: Guard) -> int:
    """Load prices and show some of them through the command; return its exit code."""
    show = ("data", "show", "IBM", "1d", "--start-date", DATE, "--limit", "10")
    return ktrdr("data", "load", "IBM,GOOG", "1d", address=address, guard=guard) or ktrdr(
        *show, address=address, guard=guard
    )


def train(address: str, home: Path, guard: Guard) -> int:
    """Train the demo strategy through the command; return its exit code."""
    return ktrdr(
        *("models", "train", "--strategy", str(STRATEGY)),
        *("--symbols", "IBM,GOOG", "--timeframes", "1d"),
        *("--seed", "42", "--plot", str(home / "training.png")),
        address=address,
        guard=guard,
    )


def _short(path: Path) -> Path:
    """The path as seen from the checkout, if it lies there."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # Once is enough: another must not keep the demo from stopping what it started.
    _on_stop_signals(signal.SIG_IGN)
    raise KeyboardInterrupt


def _on_stop_signals(action: signal.Handlers | None = None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, action if action is not None else _interrupt)


def _print_whereabouts(home: Path, stopped: str) -> None:
    """Say what was stopped and what is left."""
    print(f"{stopped} stopped.")
    for weights in sorted(home.glob("**/weights.safetensors")):
        print(f"The model is in {_short(weights.parent)}.")
    print(f"Logs and picture are in {_short(home)}.")


def main(home: Path | None = None, *, kind: Kind = PLAIN, tls: bool = False) -> int:
    """Run the demo; return the exit code of the first command that fails, else 0.

    Its files go to `home`, a folder of the caller's, or to `.ktrdr-demo`, which
    is emptied first.
    """
    # Told to stop in whichever way, the demo stops its processes first.
    _on_stop_signals()
    if home is None:
        home = ROOT / HOME
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
    try:
        guard = tls_guard(home) if tls else NOBODY
        with kind.serving(home, guard) as address:
            print(
                f"A backend is running on {address} (log: {_short(home / 'backend.log')}).",
                flush=True,
            )
            code = load(address, guard) if kind.loads else 0
            code = code or train(address, home, guard)
    except ProgramError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nThe demo was interrupted. {kind.who} stopped.", file=sys.stderr)
        return 130
    _print_whereabouts(home, kind.who)
    return code


def run(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run the demo it asks for."""
    parser = argparse.ArgumentParser(prog="python -m backend.demo", description=__doc__)
    parser.set_defaults(kind=PLAIN)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--hosts",
        action="store_const",
        dest="kind",
        const=HOSTS,
        help="train on a training host, a process of its own",
    )
    kinds.add_argument(
        "--data",
        action="store_const",
        dest="kind",
        const=DATA,
        help="first load the prices, through an IB host with a simulated gateway",
    )
    parser.add_argument("--tls", action="store_true", help="over TLS, with tokens")
    asked = parser.parse_args(arguments)
    return main(kind=asked.kind, tls=asked.tls)


if __name__ == "__main__":
    sys.exit(run())

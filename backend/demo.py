"""The demo: a real backend, a real training, watched through the `ktrdr` command.

Starts `python -m backend` on a free port, trains the demo strategy on real IBM
and GOOG daily prices, and stops the backend again, however it goes. The model,
the picture and the backend's log stay in `.ktrdr-demo`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
STRATEGY = Path("strategies/momentum_demo.yaml")
HOME = Path(".ktrdr-demo")
READY_WITHIN = 60.0
STOPPED_WITHIN = 15.0
_READY = "backend ready on "


class DemoError(Exception):
    """The demo could not be run; the text says why."""


@contextmanager
def running_backend(home: Path) -> Iterator[str]:
    """Run a backend whose files are in `home`; give its address, stop it at the end."""
    with (home / "backend.log").open("w") as log:
        process = subprocess.Popen(  # our own program
            [sys.executable, "-m", "backend"],
            cwd=ROOT,
            env={**_clean_environment(), "KTRDR_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops it in order
        )
    try:
        yield _address(process, home)
    finally:
        _stop(process)


def _clean_environment() -> dict[str, str]:
    """The environment without settings of another ktrdr, listening on any free port."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KTRDR_") and name != "OPERATIONS_CACHE_TTL"
    }
    return {**kept, "KTRDR_BACKEND_ADDRESS": "127.0.0.1:0"}


def _address(process: subprocess.Popen[str], home: Path) -> str:
    """Wait for the line that says where the backend listens."""
    if process.stdout is None:
        raise DemoError("The backend has no output to read.")
    impatience = threading.Timer(READY_WITHIN, process.kill)
    impatience.start()
    try:
        line = process.stdout.readline()
    finally:
        impatience.cancel()
        impatience.join()
    if not line.startswith(_READY):
        raise DemoError(f"The backend did not start; {home / 'backend.log'} says why.")
    return line.removeprefix(_READY).strip()


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def train(address: str, home: Path) -> int:
    """Train the demo strategy through the command; return its exit code."""
    ktrdr = Path(sys.executable).with_name("ktrdr")
    command = [
        *(str(ktrdr), "models", "train", "--backend", address),
        *("--strategy", str(STRATEGY), "--symbols", "IBM,GOOG", "--timeframes", "1d"),
        *("--seed", "42", "--plot", str(home / "training.png")),
    ]
    print("$ " + " ".join(["ktrdr", *command[1:]]), flush=True)
    return subprocess.run(command, cwd=ROOT, env=_clean_environment(), check=False).returncode  # noqa: S603  # our own program


def _short(path: Path) -> Path:
    """The path as seen from the checkout, if it lies there."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(home: Path | None = None) -> int:
    """Run the demo; return the exit code of the training.

    Its files go to `home`, a folder of the caller's, or to `.ktrdr-demo`, which
    is emptied first.
    """
    # Told to stop in whichever way, the demo stops its backend first.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    if home is None:
        home = ROOT / HOME
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
    try:
        with running_backend(home) as address:
            print(
                f"A backend is running on {address} (log: {_short(home / 'backend.log')}).",
                flush=True,
            )
            code = train(address, home)
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe demo was interrupted; its backend has been stopped.", file=sys.stderr)
        return 130
    print(f"The backend has been stopped. Model, picture and log are in {_short(home)}.")
    return code


if __name__ == "__main__":
    sys.exit(main())

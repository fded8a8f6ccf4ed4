"""The blocks of a document that are marked as runnable, and a bash that runs them.

```sh runnable            every command succeeds, and the next block goes on from there
```sh runnable nonzero    the same, but some command of it fails, as the text says
```sh runnable serving    each line is a process in a terminal of its own, until the end
```sh runnable anew       the same, once those that served before have been stopped
```python runnable        a program
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.programs import ROOT

_BLOCK = re.compile(
    r"^```(sh|python) runnable(?: (nonzero|serving|anew))?\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
_IGNORED = {".git", ".venv", ".ktrdr-demo", ".ktrdr-certs"}
_STOP_WITHIN = 20.0
_MARK = "TMPDIR"
"""The variable that tells the processes of these blocks from all others."""

PORTS: Mapping[str, str] = {
    "50051": "KTRDR_BACKEND_ADDRESS",
    "50052": "KTRDR_TRAINING_HOST_ADDRESS",
    "50053": "KTRDR_IB_HOST_ADDRESS",
    "50062": "",
    "4002": "",
}
"""The ports that documents name, and the setting whose default has it."""
TARGETS: Mapping[str, str] = {
    "TRAINING_HOST_SERVICE_URL": "50052",
    "IB_HOST_SERVICE_URL": "50053",
}
"""The settings that name where others listen, and the port in their default."""


@dataclass(frozen=True, slots=True)
class RunnableBlock:
    """One block that a reader may type as it stands."""

    line: int
    """Where it begins, counted from 1."""
    commands: str
    mode: str = ""
    """What its mark says besides: nonzero, serving or anew."""
    language: str = "sh"


def runnable_blocks(text: str) -> list[RunnableBlock]:
    """The blocks of a document that are marked as runnable, in order."""
    return [
        RunnableBlock(text.count("\n", 0, found.start()) + 1, found[3], found[2] or "", found[1])
        for found in _BLOCK.finditer(text)
    ]


def script(blocks: Sequence[RunnableBlock]) -> str:
    """One bash script of all blocks; it says which block it is at."""
    lines = ["set -e", "serving=''"]
    for block in blocks:
        lines.append(f'echo "=== the block at line {block.line}"')
        lines += _lines(block)
    return "\n".join([*lines, 'echo "=== the end"', ""])


def _lines(block: RunnableBlock) -> Iterator[str]:
    if block.language == "python":
        yield f".venv/bin/python - <<'THE_END'\n{block.commands}THE_END"
    elif block.mode == "nonzero":
        yield f"failed=''\ntrap 'failed=1' ERR\nset +e\n{block.commands}trap - ERR\nset -e"
        yield 'test -n "$failed" || { echo "nothing has failed"; exit 1; }'
    elif block.mode in {"serving", "anew"}:
        if block.mode == "anew":
            yield "kill $serving; wait $serving || true\nserving=''"
        yield from _served(block)
    else:
        yield block.commands


def _served(block: RunnableBlock) -> Iterator[str]:
    commands = block.commands.replace("\\\n", " ").splitlines()
    for number, command in enumerate(filter(str.strip, commands)):
        ready = f"ready-{block.line}-{number}"
        yield f"{command.partition(' #')[0]} > {ready} &"
        yield 'serving="$serving $!"'
        yield f"timeout 60 sh -c 'until grep -q ready {ready}; do sleep 0.1; done'"
        yield f"cat {ready}"


@dataclass(frozen=True, slots=True)
class Played:
    """How the blocks of a document went."""

    succeeded: bool
    output: str
    """What the commands said, with a line at the beginning of each block."""


def play(
    blocks: Sequence[RunnableBlock],
    folder: Path,
    *,
    within: float,
    variables: Mapping[str, str] | None = None,
) -> Played:
    """Run the blocks in a copy of the checkout's surface, on free ports, with an empty home.

    `variables` are set besides. Whatever the blocks have started is stopped at the end.
    """
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    text = script(blocks)
    for port, free in ports.items():
        text = re.sub(rf"\b{port}\b", free, text)
    (folder / "checkout").mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in _IGNORED:
            (folder / "checkout" / entry.name).symlink_to(entry)
    (folder / "checkout" / ".venv").symlink_to(sys.prefix)
    with (folder / "output").open("w+", encoding="utf-8") as output:
        bash = subprocess.Popen(
            ["bash", "-c", text],
            cwd=folder / "checkout",
            env={**_environment(folder, ports), **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        succeeded = _waited(bash, within)
        _stop(bash.pid, folder)
        bash.wait()
        output.seek(0)
        return Played(succeeded, output.read())


def _waited(bash: subprocess.Popen[bytes], within: float) -> bool:
    """Whether all blocks have succeeded in time."""
    try:
        return bash.wait(within) == 0
    except subprocess.TimeoutExpired:
        return False


def _stop(group: int, folder: Path) -> None:
    """Stop what the blocks have left behind, first in order, then for good."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(group, sign)
        with suppress(AssertionError):
            eventually(lambda: _left(folder) == [], within=_STOP_WITHIN)
            return


def _left(folder: Path) -> list[str]:
    """Ids of the processes that the blocks have started and that still run."""
    mark = f"\0{_MARK}={folder}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another's, or gone meanwhile
            if mark in b"\0" + (process / "environ").read_bytes():
                found.append(process.name)
    return found


def _environment(folder: Path, ports: Mapping[str, str]) -> dict[str, str]:
    settings = {name: f"127.0.0.1:{ports[port]}" for port, name in PORTS.items() if name}
    targets = {name: f"127.0.0.1:{ports[port]}" for name, port in TARGETS.items()}
    foreign = ("KTRDR_", "OPERATIONS_", "PYTEST_", "COV")  # of whoever runs the tests
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        **settings,
        **targets,
        "HOME": str(folder),
        "KTRDR_HOME": str(folder / "home"),
        _MARK: str(folder),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'protos' / 'gen'}",
    }


def _free_ports(count: int) -> list[str]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as open_:
        sockets = [open_.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]

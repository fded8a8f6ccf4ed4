"""The programs a user runs, run for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "strategies" / "small.yaml"


class Programs:
    """Runs `ktrdr` and `grpcurl` against one address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ktrdr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command against the address; returns whatever its exit code."""
        return subprocess.run(
            [*self.command("ktrdr"), *arguments, "--backend", self.address],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
            timeout=90,
        )

    def grpcurl(self, *arguments: str, data: object = None) -> subprocess.CompletedProcess[str]:
        """Run grpcurl against the address, with `data` as its request's JSON."""
        options = [] if data is None else ["-d", "@"]
        return subprocess.run(
            [*self.command("grpcurl"), "-plaintext", *options, self.address, *arguments],
            input=None if data is None else json.dumps(data),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def call(self, method: str, **request: object) -> dict[str, Any]:
        """Call a method with grpcurl and return its answer."""
        done = self.grpcurl(method, data=request)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    @staticmethod
    def command(name: str) -> list[str]:
        """How to run a program of this environment."""
        return [str(Path(sys.executable).with_name(name))]


def processes_with_home(home: Path) -> list[str]:
    """Ids of other processes whose files are in `home` or below it."""
    mark = f"KTRDR_HOME={home}".encode()
    below = mark + b"/"
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # another's, or gone meanwhile
            continue
        ours = any(each == mark or each.startswith(below) for each in variables)
        if ours and int(folder.name) != os.getpid():
            found.append(folder.name)
    return found

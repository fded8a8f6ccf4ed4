import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from backend.cli.failures import ExitCode

ROOT = Path(__file__).parents[3]
ENTRY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]["ktrdr"]
INTERRUPTED = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)


class CtrlC:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            del sys.argv[1]
            os.kill(os.getpid(), signal.SIGINT)


sys.meta_path.insert(0, CtrlC())
"""
"""Before the command: presses Ctrl-C as the module of the first argument is imported, once."""


def run(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run what pyproject.toml has `ktrdr` run."""
    module, function = ENTRY.split(":")
    code = f"{before}\nfrom {module} import {function}\nsys.exit({function}())"
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    )


@pytest.mark.parametrize("module", ["typer", "backend.cli.commands.data", "typer.core"])
def test_ctrl_c_while_modules_are_imported_ends_the_command_quietly(module: str) -> None:
    ended = run(module, "--help", before=INTERRUPTED)
    assert (ExitCode.INTERRUPTED, "", "") == (ended.returncode, ended.stdout, ended.stderr)


def test_what_is_installed_is_the_command() -> None:
    ended = run("--help")
    assert (ExitCode.DONE, "") == (ended.returncode, ended.stderr)
    assert "Usage: ktrdr" in ended.stdout


def test_the_package_can_be_run_as_well() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "backend.cli", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ExitCode.USAGE == ended.returncode
    assert "Usage: ktrdr" in ended.stderr

"""Where the `ktrdr` command begins: nothing is imported yet, so Ctrl-C ends also that quietly."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        from backend.cli.app import main as run

        run()
    except KeyboardInterrupt:
        from backend.cli.failures import ExitCode

        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()

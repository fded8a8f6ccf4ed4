"""`python -m docs.reference`: generate every reference of the documents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.reference import classes
from docs.reference.classes import Section, Shown
from docs.reference.contract import Reference
from docs.reference.descriptors import read_contract

FOLDER = Path(__file__).resolve().parents[1] / "architecture" / "operations"

INTRODUCTION = """\
The classes of the pull engine that other code uses: to report progress, to run and read operations,
to read those of another process. How they play together is in
[ARCHITECTURE.md](../../../ARCHITECTURE.md#the-pull-engine), how to build on them in the
[migration guide](migration-guide.md). Times are seconds unless a name or a type says otherwise;
deadlines are instants of the monotonic clock. Errors are those of
[shared/rpc/errors.py](../../../shared/rpc/errors.py).
"""
SECTIONS = (
    Section(
        "Reporting",
        "A worker reports to a bridge. The methods that begin with an underscore are for its "
        "subclasses, which give them the words of the work.",
        (
            Shown(
                "ProgressBridge", "shared.operations.bridge", ("_update_state", "_append_metric")
            ),
            Shown("BridgeSnapshot", "shared.operations.bridge"),
            Shown("CancelSignal", "shared.operations.cancellation"),
        ),
    ),
    Section(
        "Running and reading",
        "Every process has one. Its composition root makes it; servicers and launches call it.",
        (
            Shown("OperationsService", "shared.operations.service"),
            Shown("OperationsLimits", "shared.operations.service"),
            Shown("NewOperation", "shared.operations.starts"),
            Shown("Launch", "shared.operations.starts"),
            Shown("OperationView", "shared.operations.views"),
        ),
    ),
    Section(
        "Asking another process",
        "Over the generated stub and one channel; every call has a deadline.",
        (
            Shown("RemoteOperationStub", "shared.operations.remote"),
            Shown("PendingAnswer", "shared.operations.remote"),
        ),
    ),
    Section(
        "Values",
        "What the others take and return. The contract has the same in messages: "
        "[API reference](api-reference.md).",
        tuple(
            Shown(name, "shared.operations.model")
            for name in (
                "Operation",
                "Progress",
                "Metric",
                "OperationError",
                "Freshness",
                "Hop",
                "Liveness",
                "PackedResult",
            )
        ),
    ),
)
REFERENCES: Mapping[str, Callable[[], str]] = {
    "api-reference.md": lambda: Reference(read_contract()).markdown(),
    "python-reference.md": lambda: classes.markdown("Python reference", INTRODUCTION, SECTIONS),
}
"""Every reference, by its name in the folder of the documents about operations."""


def run() -> int:
    """Generate them all."""
    for name, generate in REFERENCES.items():
        (FOLDER / name).write_text(generate(), "utf-8")
        print(f"Generated docs/architecture/operations/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(run())

"""`python -m docs.drawing`: draw every picture of the documents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.drawing import cache, host_training, local_training, pull

DOCS = Path(__file__).resolve().parents[1]
PICTURES: Mapping[str, Callable[[], str]] = {
    "pull.svg": pull.picture,
    "architecture/operations/local-training-flow.svg": local_training.picture,
    "architecture/operations/host-training-flow.svg": host_training.picture,
    "architecture/operations/cache-behavior.svg": cache.picture,
}
"""Every picture, by where it is kept below `docs`."""


def run() -> int:
    """Draw them all."""
    for name, picture in PICTURES.items():
        (DOCS / name).write_text(picture(), "utf-8")
        print(f"Drew docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(run())

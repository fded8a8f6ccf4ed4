"""What makes a new name in a folder outlast a power cut; syncing the file alone does not."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, as they are now."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_folders(folder: Path, root: Path) -> None:
    """Do so with a folder and those above it, up to `root`: any of them may be new."""
    for each in (folder, *folder.parents):
        sync_folder(each)
        if each == root:
            break

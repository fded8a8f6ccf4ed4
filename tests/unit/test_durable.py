from __future__ import annotations

from pathlib import Path

from shared.durable import sync_folder, sync_folders


def test_a_folder_is_synced(tmp_path: Path, synced: list[Path]) -> None:
    sync_folder(tmp_path)
    assert [tmp_path] == synced


def test_so_are_those_above_it_up_to_the_root(tmp_path: Path, synced: list[Path]) -> None:
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    sync_folders(folder, tmp_path / "a")
    assert [folder, folder.parent, tmp_path / "a"] == synced

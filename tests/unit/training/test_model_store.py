import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time

import numpy as np
import pytest
import torch

from shared.rpc.errors import ModelNotFoundError
from shared.training.classifier import Classifier
from shared.training.model_store import (
    ModelNotSavedError,
    ModelStore,
    ModelUnreadableError,
    TrainedModel,
)
from shared.training.network import Mlp
from shared.training.scaler import Scaler
from shared.training.strategy import Strategy
from tests.support.results import RESULT

NOW = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
TOLD = replace(
    RESULT,
    model_path="elsewhere",
    model_name="other/1d_v9",
    instance="one",
    feature_count=9,
    end_time=NOW,
    seed=2**62,
    warnings=("look twice",),
)
"""As a training tells it, which does not know where its model will lie."""


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def trained(small: Callable[..., Strategy]) -> Callable[..., TrainedModel]:
    """Makes a model to be saved, of a seed and a time."""

    def make(seed: int = 1, at: datetime = NOW) -> TrainedModel:
        strategy = small()
        generator = torch.Generator().manual_seed(seed)
        network = Mlp(strategy.model.architecture, 9, generator)
        features = tuple(f"f{number}" for number in range(9))
        scaler = Scaler.fit(np.random.default_rng(seed).normal(3, 2, (50, 9)))
        return TrainedModel(strategy, "1d", features, scaler, network.weights(), TOLD, at)

    return make


Trained = Callable[..., TrainedModel]


def test_a_saved_model_is_found_as_it_was(store: ModelStore, trained: Trained) -> None:
    model = trained()

    saved = store.save(model)

    assert "small/1d_v1" == saved.name
    assert saved == store.get("small/1d_v1")
    assert (NOW, model.features, model.scaler) == (
        saved.create_time,
        saved.features,
        saved.scaler,
    )
    assert model.strategy.to_yaml() == saved.strategy_yaml
    assert replace(TOLD, model_name=saved.name, model_path=str(saved.path)) == saved.result
    assert sum(file.stat().st_size for file in saved.path.iterdir()) == saved.size_bytes


def test_a_loaded_model_predicts_the_same(store: ModelStore, trained: Trained) -> None:
    from shared.training.network import load_mlp

    model = trained()
    inputs = np.random.default_rng(5).normal(3, 2, (40, 9))
    network = load_mlp(model.strategy.model.architecture, 9, model.weights)
    before = Classifier(network, model.scaler, model.features).probabilities(inputs)

    after = store.load(store.save(model).name).probabilities(inputs)

    assert (before == after).all()


def test_nothing_is_pickled(store: ModelStore, trained: Trained) -> None:
    files = {file.name: file.read_bytes() for file in store.save(trained()).path.iterdir()}

    assert {"model.json", "strategy.yaml", "weights.safetensors"} == set(files)
    assert not any(content.startswith((b"\x80", b"PK")) for content in files.values())


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self._mark}",)


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    mark = tmp_path / "went-off"
    pickle.loads(pickle.dumps(Bomb(mark)))  # noqa: S301  # to show that it is a danger
    assert mark.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "strategy.yaml"])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_in_place_of_a_models_file_is_refused_and_does_not_run(
    store: ModelStore, trained: Trained, tmp_path: Path, name: str, kind: str
) -> None:
    saved, mark = store.save(trained()), tmp_path / "went-off"
    if kind == "pickle":
        (saved.path / name).write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"weights": Bomb(mark)}, saved.path / name)

    with pytest.raises(ModelUnreadableError, match="cannot be read"):
        store.load(saved.name)

    assert not mark.exists()


def test_a_pickle_beside_a_models_files_is_left_alone(
    store: ModelStore, trained: Trained, tmp_path: Path
) -> None:
    saved, mark = store.save(trained()), tmp_path / "went-off"
    for name in ("weights.pt", "pytorch_model.bin", "scaler.pkl", "__init__.py"):
        (saved.path / name).write_bytes(pickle.dumps(Bomb(mark)))

    store.load(saved.name)

    assert not mark.exists()


def test_versions_count_up(store: ModelStore, trained: Trained) -> None:
    names = [store.save(trained()).name for _ in range(3)]

    assert ["small/1d_v1", "small/1d_v2", "small/1d_v3"] == names


def test_a_version_that_appears_meanwhile_is_left_alone(
    store: ModelStore, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.save(trained(seed=1))
    monkeypatch.setattr("shared.training.model_store._versions", lambda *_: iter(()))

    second = store.save(trained(seed=2))

    assert "small/1d_v2" == second.name
    assert first == store.get(first.name)


def test_a_version_taken_at_the_last_moment_is_left_alone(
    store: ModelStore, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    taken: list[int] = []

    def rename_too_late(self: Path, target: Path) -> Path:
        if not taken:
            target.mkdir()
            taken.append((target / "somebody.txt").write_text("here first"))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_too_late)

    assert "small/1d_v2" == store.save(trained()).name


def test_savers_at_once_never_share_a_version(store: ModelStore, trained: Trained) -> None:
    models = [trained(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        names = [saved.name for saved in pool.map(store.save, models)]

    assert {f"small/1d_v{version}" for version in range(1, 9)} == set(names)


def test_the_list_is_newest_first(store: ModelStore, trained: Trained) -> None:
    for hours in (0, 2, 1):
        store.save(trained(at=NOW + timedelta(hours=hours)))

    listing = store.list()

    assert ["small/1d_v2", "small/1d_v3", "small/1d_v1"] == [m.name for m in listing.models]
    assert [] == listing.unreadable


def test_an_empty_store_lists_nothing(store: ModelStore) -> None:
    assert ([], []) == (store.list().models, store.list().unreadable)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.json", b"{"),
        ("model.json", b'{"format": 2}'),
        ("strategy.yaml", b"\xff"),
        ("strategy.yaml", None),
        ("weights.safetensors", None),
    ],
)
def test_unreadable_models_are_named(
    file: str, content: bytes | None, store: ModelStore, trained: Trained
) -> None:
    good, bad = store.save(trained()), store.save(trained())
    (bad.path / file).unlink()
    if content is not None:
        (bad.path / file).write_bytes(content)

    listing = store.list()

    assert [good.name] == [model.name for model in listing.models]
    assert [bad.name] == listing.unreadable
    with pytest.raises(ModelUnreadableError, match=bad.name):
        store.get(bad.name)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"junk", "model.json: Invalid JSON: expected value at line 1 column 1"),
        (b"{}", "model.json: format: Field required"),
    ],
)
def test_what_is_wrong_with_a_description_is_told_in_one_line(
    content: bytes, told: str, store: ModelStore, trained: Trained
) -> None:
    saved = store.save(trained())
    (saved.path / "model.json").write_bytes(content)

    with pytest.raises(ModelUnreadableError) as caught:
        store.get(saved.name)

    assert f"The model {saved.name!r} cannot be read ({told}). " in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("file", "content"),
    [("weights.safetensors", b"no tensors"), ("strategy.yaml", b"name: x")],
)
def test_a_model_that_cannot_be_loaded_says_so(
    file: str, content: bytes, store: ModelStore, trained: Trained
) -> None:
    saved = store.save(trained())
    (saved.path / file).write_bytes(content)

    with pytest.raises(ModelUnreadableError) as caught:
        store.load(saved.name)

    assert "MODEL_UNREADABLE" == caught.value.reason
    assert "train again" in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        "",
        "small",
        "small/1d_v2",
        "../small/1d_v1",
        "small/../small/1d_v1",
        "small/1d_v1/",
        "small/1d_v01",
        "small/2h_v1",
        "small/1d_v1\n",
        "/small/1d_v1",
        "small/1d_v1\x00",
        ".saving-x/1d_v1",
    ],
)
def test_a_name_of_no_model_is_not_found(name: str, store: ModelStore, trained: Trained) -> None:
    store.save(trained())

    with pytest.raises(ModelNotFoundError):
        store.get(name)


def test_other_folders_are_no_models(store: ModelStore, trained: Trained) -> None:
    saved = store.save(trained())
    (saved.path.parent / ".saving-abc").mkdir()
    (saved.path.parent / "notes").mkdir()
    (saved.path.parent / "1d_v7").write_text("a file")

    assert [saved.name] == [model.name for model in store.list().models]
    assert [] == store.list().unreadable
    assert "small/1d_v8" == store.save(trained()).name


def test_a_save_that_fails_leaves_nothing(
    store: ModelStore, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)

    with pytest.raises(ModelNotSavedError, match="No space left on device") as caught:
        store.save(trained())

    assert "MODEL_NOT_SAVED" == caught.value.reason
    assert [] == list((tmp_path / "models" / "small").iterdir())


def test_a_model_that_was_saved_outlasts_a_power_cut_with_its_name(
    store: ModelStore, trained: Trained, tmp_path: Path, synced: list[Path]
) -> None:
    place = store.save(trained()).path
    unfinished = synced[0].parent
    assert {unfinished / file.name for file in place.iterdir()} == set(synced[:3])
    assert [unfinished, place.parent, tmp_path / "models"] == synced[3:]


def test_what_a_killed_save_left_goes_with_a_later_one(store: ModelStore, trained: Trained) -> None:
    parent = store.save(trained()).path.parent
    old, young = parent / ".saving-old", parent / ".saving-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "model.json").write_text("{}")
    long_ago = time() - 25 * 3600
    os.utime(old, (long_ago, long_ago))

    store.save(trained())

    assert (False, True) == (old.exists(), young.exists())


def test_what_cannot_be_removed_does_not_hinder_a_save(
    store: ModelStore, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another saver may remove it at the same time."""
    (store.save(trained()).path.parent / ".saving-gone").symlink_to("nowhere")

    assert "small/1d_v2" == store.save(trained()).name


def test_a_root_that_cannot_be_made_is_reported(tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "models").write_text("a file")

    with pytest.raises(ModelNotSavedError, match="make it writable"):
        ModelStore(tmp_path / "models").save(trained())

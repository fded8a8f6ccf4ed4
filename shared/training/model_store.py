"""The model store: trained models in folders, whole or not there at all.

A model is `{root}/{strategy}/{timeframe}_v{N}/` with model.json, strategy.yaml
and weights.safetensors. Nothing is pickled, so reading a model runs no code of
it. Listing and describing models need no torch.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from shared.durable import sync_folder, sync_folders
from shared.marketdata.timeframes import TIMEFRAMES
from shared.rpc.errors import FailedPreconditionError, KtrdrError, ModelNotFoundError
from shared.training.result import TrainingResult
from shared.training.scaler import Scaler
from shared.training.strategy import Strategy, load_strategy

if TYPE_CHECKING:
    from shared.training.classifier import Classifier

_DESCRIPTION, _STRATEGY, _WEIGHTS = "model.json", "strategy.yaml", "weights.safetensors"
_UNFINISHED = ".saving-"
_ABANDONED = 24 * 3600.0
"""Seconds after which nobody writes in an unfinished folder any more."""
_FOLDER = re.compile(rf"({'|'.join(TIMEFRAMES)})_v([1-9][0-9]{{0,8}})")
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}/{_FOLDER.pattern}")


class ModelUnreadableError(FailedPreconditionError):
    """The model's folder is there, but cannot be read."""

    reason = "MODEL_UNREADABLE"

    def __init__(self, name: str, cause: object) -> None:
        super().__init__(
            f"The model {name!r} cannot be read ({str(cause)[:300]}). Restore its folder from a "
            "copy, or delete it and train again.",
            metadata={"name": name},
        )


class ModelNotSavedError(FailedPreconditionError):
    """The model could not be written."""

    reason = "MODEL_NOT_SAVED"

    def __init__(self, root: Path, cause: OSError) -> None:
        super().__init__(
            f"The model could not be saved below {root} ({cause}). Free space there or make it "
            "writable, then train again.",
            metadata={"path": str(root)},
        )


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a training hands over to be saved."""

    strategy: Strategy
    timeframe: str
    """The finest trained on."""
    features: tuple[str, ...]
    scaler: Scaler
    weights: Mapping[str, NDArray[np.float32]]
    result: TrainingResult
    """Its model_name and model_path are not kept: the folder says them."""
    create_time: datetime


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model as it lies in the store, without its weights."""

    name: str
    """{strategy}/{timeframe}_v{N}"""
    path: Path
    create_time: datetime
    size_bytes: int
    strategy_yaml: str
    """With overrides applied."""
    features: tuple[str, ...]
    scaler: Scaler
    result: TrainingResult


@dataclass(frozen=True, slots=True)
class ModelListing:
    """What lies in the store."""

    models: Sequence[SavedModel]
    """Newest first."""
    unreadable: Sequence[str]
    """Names of the folders that could not be read."""


@dataclass(frozen=True, slots=True)
class _Description:
    """What model.json holds."""

    format: Literal[1]
    create_time: datetime
    features: tuple[str, ...]
    scaler: Scaler
    result: TrainingResult


_descriptions: TypeAdapter[_Description] = TypeAdapter(_Description)


class ModelStore:
    """Trained models below one folder; several processes may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, model: TrainedModel) -> SavedModel:
        """Write a model under the next free version and return it as it lies there.

        Written beside its place and moved there by one rename, so no reader sees
        half of it and two savers never share a version. What savers that were killed
        have left of this strategy is removed after a day. Raises ModelNotSavedError;
        ModelNotFoundError or ModelUnreadableError if somebody removes or spoils it
        at once.
        """
        parent = self._root / model.strategy.name
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _sweep(parent)
            with _unfinished(parent) as folder:
                _write(folder, model)
                place = _move(folder, parent, model.timeframe)
            sync_folders(parent, self._root)
        except OSError as error:
            raise ModelNotSavedError(self._root, error) from error
        return self.get(f"{model.strategy.name}/{place.name}")

    def get(self, name: str) -> SavedModel:
        """Return a model by name. Raises ModelNotFoundError, ModelUnreadableError."""
        # Only a name of this shape becomes a path: none leads out of the root.
        if not _NAME.fullmatch(name) or not (self._root / name).is_dir():
            raise ModelNotFoundError(name)
        return self._read(name)

    def list(self) -> ModelListing:
        """Return every model, newest first, and the names of unreadable ones."""
        models, unreadable = [], []
        for name in self._names():
            try:
                models.append(self._read(name))
            except ModelUnreadableError:
                unreadable.append(name)
        models.sort(key=lambda model: (model.create_time, model.name), reverse=True)
        return ModelListing(models, sorted(unreadable))

    def load(self, name: str) -> Classifier:
        """Return the model ready to answer; imports torch.

        Raises ModelNotFoundError, ModelUnreadableError.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from shared.training.classifier import Classifier
        from shared.training.network import load_mlp

        saved = self.get(name)
        try:
            architecture = load_strategy(saved.strategy_yaml).model.architecture
            weights = load_file(saved.path / _WEIGHTS)
            network = load_mlp(architecture, len(saved.features), weights)
        except (OSError, KtrdrError, SafetensorError, RuntimeError) as error:
            raise ModelUnreadableError(name, error) from error
        return Classifier(network, saved.scaler, saved.features)

    def _names(self) -> Iterator[str]:
        for folder in self._root.glob("*/*"):
            name = f"{folder.parent.name}/{folder.name}"
            if _NAME.fullmatch(name) and folder.is_dir():
                yield name

    def _read(self, name: str) -> SavedModel:
        path = self._root / name
        try:
            kept = _descriptions.validate_json((path / _DESCRIPTION).read_bytes())
            strategy = (path / _STRATEGY).read_text("utf-8")
            size = sum(file.stat().st_size for file in path.iterdir())
            (path / _WEIGHTS).stat()
        except ValidationError as error:
            raise ModelUnreadableError(name, _first_fault(error)) from error
        except (OSError, ValueError) as error:  # unicode's is a ValueError
            raise ModelUnreadableError(name, error) from error
        return SavedModel(
            name=name,
            path=path,
            create_time=kept.create_time,
            size_bytes=size,
            strategy_yaml=strategy,
            features=kept.features,
            scaler=kept.scaler,
            result=replace(kept.result, model_name=name, model_path=str(path)),
        )


def _first_fault(error: ValidationError) -> str:
    """What is wrong with a description, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return ": ".join(filter(None, (_DESCRIPTION, place, first["msg"])))


@contextmanager
def _unfinished(parent: Path) -> Iterator[Path]:
    """Give a folder of one's own to write in; what is still there at the end goes."""
    folder = parent / f"{_UNFINISHED}{uuid4().hex}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what savers have left that did not live to do it themselves."""
    for folder in parent.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):  # another saver may sweep as well
            if time() - folder.stat().st_mtime > _ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, model: TrainedModel) -> None:
    from safetensors.numpy import save

    description = _Description(
        format=1,
        create_time=model.create_time,
        features=model.features,
        scaler=model.scaler,
        result=replace(model.result, model_name="", model_path=""),
    )
    files = {
        _WEIGHTS: save(dict(model.weights)),
        _STRATEGY: model.strategy.to_yaml().encode(),
        _DESCRIPTION: _descriptions.dump_json(description, indent=2),
    }
    for name, content in files.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(folder)


def _move(folder: Path, parent: Path, timeframe: str) -> Path:
    """Rename the folder to the next free version; the rename itself is the claim."""
    version = 1 + max(_versions(parent, timeframe), default=0)
    while True:
        place = parent / f"{timeframe}_v{version}"
        if not place.exists():
            try:
                return folder.rename(place)
            except OSError:
                if not place.exists():
                    raise
        version += 1


def _versions(parent: Path, timeframe: str) -> Iterator[int]:
    for folder in parent.iterdir():
        match = _FOLDER.fullmatch(folder.name)
        if match and match[1] == timeframe:
            yield int(match[2])

"""No name in a request leads out of the folders that are a backend's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ktrdr.marketdata.v1 import market_data_service_pb2 as data_pb
from ktrdr.training.v1 import models_service_pb2 as models_pb
from ktrdr.training.v1 import training_service_pb2 as training_pb
from shared.marketdata.store import BarStore
from tests.integration.loads import FROM, TO, load_whole, write_csv
from tests.integration.refusals import refusal_of, refused
from tests.integration.running import BARS, COMPLETED, SMALL, RunningBackend, running_backend
from tests.support.contract import METHODS

QUICK = {"model.training.epochs": "1"}
SECRET = "swordfish"  # noqa: S105  # what must never be seen
HARMLESS = {"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "OK"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine") / "ktrdr"


@pytest.fixture(scope="module")
def own(home: Path) -> Iterator[RunningBackend]:
    """A backend with a model and a series, and the same outside its folders."""
    folder = home.parent / "csv"
    folder.mkdir(parents=True)
    write_csv(folder, "MINE", BARS.read("IBM", "1d", FROM, TO))
    with running_backend(home, data_source="csv", csv_folder=folder) as running:
        assert COMPLETED == load_whole(running, symbols=["MINE"]).status
        trained = running.train(symbols=["MINE"], timeframes=["1d"], overrides=QUICK)
        assert COMPLETED == running.ended(trained).status
        outside = home.parent / "outside"
        shutil.copytree(home / "models" / "small" / "1d_v1", outside / "1d_v1")
        (outside / "1d_v1" / "strategy.yaml").write_text(SECRET)
        shutil.copy(folder / "MINE_1d.csv", outside / "EVIL_1d.csv")
        shutil.copy(home / "data" / "1d" / "MINE.parquet", outside / "EVIL.parquet")
        yield running


@pytest.fixture(autouse=True)
def machine_stays_as_it_is(own: RunningBackend, home: Path) -> Iterator[None]:
    """Nothing is written outside the backend's folders, and it gets no others."""

    def state() -> object:
        outside = [path for path in home.parent.rglob("*") if not path.is_relative_to(home)]
        changed = {path: path.stat().st_mtime_ns for path in outside if path.is_file()}
        return changed, sorted(outside), sorted(home.iterdir())

    before = state()
    yield
    assert before == state()


# ------------------------------------------------------------------- what lies outside


@pytest.mark.parametrize(
    "name", ["../outside/1d_v1", "../../outside/1d_v1", "{root}/outside/1d_v1"]
)
def test_a_model_outside_is_not_there(own: RunningBackend, home: Path, name: str) -> None:
    shutil.copytree(home.parent / "outside", home / "outside", dirs_exist_ok=True)
    try:
        request = models_pb.GetModelRequest(name=name.format(root=home.parent))
        assert "MODEL_NOT_FOUND" == refused(lambda: own.models.GetModel(request)).reason
    finally:
        shutil.rmtree(home / "outside")


@pytest.mark.parametrize("symbol", ["../../../outside/EVIL", "{root}/outside/EVIL"])
def test_bars_outside_are_not_there(own: RunningBackend, home: Path, symbol: str) -> None:
    symbol = symbol.format(root=home.parent)
    request = data_pb.ReadBarsRequest(symbol=symbol, timeframe="1d")
    assert "SERIES_NOT_FOUND" == refused(lambda: list(own.market_data.ReadBars(request))).reason
    assert BarStore(home / "data").covered("MINE", "1d")
    assert not BarStore(home / "data").covered(symbol, "1d")


@pytest.mark.parametrize("symbol", ["../outside/EVIL", "{root}/outside/EVIL"])
def test_prices_outside_are_neither_loaded_nor_trained_on(
    own: RunningBackend, home: Path, symbol: str
) -> None:
    symbol = symbol.format(root=home.parent)
    load = data_pb.StartDataLoadRequest(symbols=[symbol], timeframe="1d")
    train = training_pb.StartTrainingRequest(
        strategy_yaml=SMALL, symbols=[symbol], timeframes=["1d"]
    )
    for call in (
        lambda: own.market_data.StartDataLoad(load),
        lambda: own.training.StartTraining(train),
    ):
        assert "symbols[0]" in refused(call).fields


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "..", ".", "", ".evil", "evil/1d_v1", "evil\n", "evil\0", "é", "~"]
)
def test_a_strategy_is_not_saved_under_a_name_that_is_a_path(
    own: RunningBackend, home: Path, name: str
) -> None:
    quoted = name.encode("unicode_escape").decode()
    request = training_pb.StartTrainingRequest(
        strategy_yaml=SMALL, overrides={"name": f'"{quoted}"', **QUICK}
    )
    assert any(
        "name" in field for field in refused(lambda: own.training.StartTraining(request)).fields
    )
    assert ["small"] == [path.name for path in (home / "models").iterdir()]


# ------------------------------------------------------------------- every text field

HOSTILE = [
    "..",
    "../../outside/1d_v1",
    "..\\..\\outside",
    "%2e%2e/outside",
    "/etc/passwd",
    "./small/../../outside/1d_v1",
    "small/1d_v1/../../../outside/1d_v1",
    "MINE\0",
    "MINE/../../../outside/EVIL",
    "-rf",
    "~/x",
    "$(touch x)",
    "MINE\n",
    "x" * 5000,
]
VALID: dict[str, Message] = {
    "StartTraining": training_pb.StartTrainingRequest(
        strategy_yaml=SMALL, symbols=["MINE"], timeframes=["1d"], overrides=QUICK
    ),
    "StartDataLoad": data_pb.StartDataLoadRequest(symbols=["MINE"], timeframe="1d"),
    "ReadBars": data_pb.ReadBarsRequest(symbol="MINE", timeframe="1d"),
    "GetModel": models_pb.GetModelRequest(name="small/1d_v1"),
}
"""What the other fields hold while one is hostile; of other methods, nothing."""


def texts() -> Iterator[tuple[Any, FieldDescriptor]]:
    """Every text field of every request that a backend takes."""
    for method in METHODS:
        if method.containing_service.name == "TrainingHostService":
            continue
        for field in method.input_type.fields:
            entry = field.message_type and field.message_type.GetOptions().map_entry
            if entry or field.type == FieldDescriptor.TYPE_STRING:
                yield method, field


def hostile(method: Any, field: FieldDescriptor, text: str) -> Message:
    """A request with one field that is hostile."""
    request = GetMessageClass(method.input_type)()
    if method.name in VALID:
        request.CopyFrom(VALID[method.name])
    request.ClearField(field.name)
    if field.type != FieldDescriptor.TYPE_STRING:
        getattr(request, field.name)[text] = text
    elif field.is_repeated:
        getattr(request, field.name).append(text)
    else:
        setattr(request, field.name, text)
    return request


def sent(own: RunningBackend, method: Any, request: Message) -> tuple[str, bytes]:
    """How the call ends, and everything that comes back."""
    channel: Any = own.channel
    path = f"/{method.containing_service.full_name}/{method.name}"
    data = request.SerializeToString()
    try:
        if method.server_streaming:
            return "OK", b"".join(channel.unary_stream(path)(data, timeout=5))
        return "OK", channel.unary_unary(path)(data, timeout=5)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        return refusal.code.name, repr(refusal).encode()


@pytest.mark.parametrize(("method", "field"), [*texts()], ids=lambda described: str(described.name))
def test_a_hostile_text_in_any_field_reaches_no_file(
    own: RunningBackend, method: Any, field: FieldDescriptor
) -> None:
    for text in HOSTILE:
        code, answer = sent(own, method, hostile(method, field, text))
        assert code in HARMLESS, (text, answer)
        assert SECRET.encode() not in answer
        assert b"root:" not in answer

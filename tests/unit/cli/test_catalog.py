from ktrdr.training.v1 import models_service_pb2 as service
from tests.unit.cli.command_line import Run
from tests.unit.cli.samples import model
from tests.unit.cli.scripted_backend import ScriptedBackend


def test_models_are_listed_within_80_columns(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script(
        "ListModels",
        service.ListModelsResponse(models=[model()], total_count=2, unreadable=["broken/1d_v1"]),
    )
    ended = ktrdr("models", "list", "--limit", "1")
    row = ended.stdout.splitlines()[1]
    assert row.split() == [
        "demo/1d_v1",
        "71.2",
        "%",
        "41.0",
        "%",
        "3",
        "12.3",
        "kB",
        "2024-01-31",
        "10:22",
    ]
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert "1 of 2 models." in ended.stderr
    assert "broken/1d_v1 could not be read" in ended.stderr


def test_no_models_are_told(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("ListModels", service.ListModelsResponse())
    ended = ktrdr("models", "list")
    assert (ended.stdout, ended.stderr) == ("", "0 models.\n")


def test_models_in_json_are_one_document(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("ListModels", service.ListModelsResponse(models=[model()]))
    document = ktrdr("models", "list", "--format", "json").document
    assert document["models"][0]["sizeBytes"] == "12345"


def test_a_model_is_shown_with_figures_inputs_and_strategy(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    scripted.script("GetModel", service.GetModelResponse(model=model()))
    stdout = ktrdr("models", "show", "demo/1d_v1").stdout
    for fact in ("71.2 %", "1d_rsi_14_oversold, 1d_rsi_14_neutral", "      type: mlp"):
        assert fact in stdout
    assert scripted.requests["GetModel"][0].name == "demo/1d_v1"


def test_a_model_in_json_is_one_document(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetModel", service.GetModelResponse(model=model()))
    document = ktrdr("models", "show", "demo/1d_v1", "--format", "json").document
    assert document["result"]["seed"] == "42"

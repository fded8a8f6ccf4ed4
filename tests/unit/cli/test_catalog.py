import grpc

from backend.cli.failures import ExitCode
from ktrdr.training.v1 import model_pb2
from ktrdr.training.v1 import models_service_pb2 as service
from tests.unit.cli.command_line import Run
from tests.unit.cli.samples import model
from tests.unit.cli.scripted_backend import Refusal, ScriptedBackend


def model_of(instance: str) -> model_pb2.Model:
    held = model()
    held.result.instance = instance
    return held


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


def test_models_of_several_processes_are_listed_with_their_holder_within_80_columns(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    models = [model_of("3f2a9c1b7d4e8a60"), model_of("8d1c0e77aa")]
    scripted.script("ListModels", service.ListModelsResponse(models=models, total_count=2))
    rows = ktrdr("models", "list").stdout.splitlines()
    assert ["instance", "3f2a9c1b", "8d1c0e77"] == [row.split()[-1] for row in rows]
    assert max(map(len, rows)) <= 80


def test_models_of_one_process_are_listed_without_it(ktrdr: Run, scripted: ScriptedBackend) -> None:
    models = [model_of("3f2a9c1b7d4e8a60"), model_of("3f2a9c1b7d4e8a60")]
    scripted.script("ListModels", service.ListModelsResponse(models=models, total_count=2))
    assert "3f2a9c1b" not in ktrdr("models", "list").stdout


def test_hosts_whose_models_are_missing_are_named_once(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    page = service.ListModelsResponse(models=[model()], total_count=2, unreachable=["down:1"])
    first = service.ListModelsResponse(next_page_token="more")  # noqa: S106  # of a page
    first.MergeFrom(page)
    scripted.script("ListModels", first, page)
    ended = ktrdr("models", "list")
    assert ended.exit_code == ExitCode.DONE
    assert 1 == ended.stderr.count("down:1 did not answer; its models are missing here.")


def test_a_model_is_asked_for_by_its_holder(ktrdr: Run, scripted: ScriptedBackend) -> None:
    scripted.script("GetModel", service.GetModelResponse(model=model_of("3f2a9c1b7d4e8a60")))
    stdout = ktrdr("models", "show", "demo/1d_v1", "--instance", "3f2a").stdout
    assert "3f2a" == scripted.requests["GetModel"][0].instance
    assert "3f2a9c1b7d4e8a60" in stdout


def test_a_name_that_several_hold_is_explained_with_the_way_to_tell_them_apart(
    ktrdr: Run, scripted: ScriptedBackend
) -> None:
    two = "2 processes hold a model 'demo/1d_v1': 3f2a9c1b, 8d1c0e77."
    code = grpc.StatusCode.FAILED_PRECONDITION
    scripted.script("GetModel", Refusal(code, two, "MODEL_AMBIGUOUS"))
    ended = ktrdr("models", "show", "demo/1d_v1")
    assert ended.exit_code == ExitCode.USAGE
    assert two in ended.stderr
    backend = f"--backend {scripted.address}"
    assert f"`ktrdr models list {backend}` shows who holds which" in ended.stderr
    assert f"ktrdr models show demo/1d_v1 --instance ID {backend}" in ended.stderr


def test_any_other_refusal_is_told_as_it_is(ktrdr: Run, scripted: ScriptedBackend) -> None:
    code = grpc.StatusCode.NOT_FOUND
    scripted.script("GetModel", Refusal(code, "No model.", "MODEL_NOT_FOUND"))
    ended = ktrdr("models", "show", "demo/1d_v1")
    assert ended.exit_code == ExitCode.USAGE
    assert "MODEL_NOT_FOUND" in ended.stderr

from pathlib import Path

import pytest

from backend.cli import validation
from backend.cli.failures import ExitCode
from shared.rpc.errors import FieldViolation, InvalidArgumentError
from tests.unit.cli.command_line import Run


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_strategy(text: str, overrides: dict[str, str]) -> None:
        raise InvalidArgumentError(
            [
                FieldViolation("strategy_yaml.indicators[0].name", "unknown indicator 'rsy'."),
                FieldViolation("overrides.a", f"{overrides['a']} is no number."),
            ]
        )

    monkeypatch.setattr(validation, "load_strategy", load_strategy)


def test_each_fault_of_a_strategy_has_a_line(run: Run, strategy: Path, faulty: None) -> None:
    ended = run("strategies", "validate", str(strategy), "--set", "a=x")
    assert ended.exit_code == ExitCode.USAGE
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[1:] == [
        "  - strategy_yaml.indicators[0].name: unknown indicator 'rsy'.",
        "  - overrides.a: x is no number.",
    ]


def test_faults_in_json_are_one_document(run: Run, strategy: Path, faulty: None) -> None:
    ended = run("strategies", "validate", str(strategy), "--set", "a=x", "--format", "json")
    assert ended.exit_code == ExitCode.USAGE
    assert ended.document["valid"] is False
    assert ended.document["violations"][1] == {
        "field": "overrides.a",
        "description": "x is no number.",
    }


def test_a_real_fault_is_found(run: Run, strategy: Path) -> None:
    assert run("strategies", "validate", str(strategy)).exit_code == ExitCode.USAGE


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_valid_strategy_is_told_by_name(
    run: Run, strategy: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    class Strategy:
        name = "demo"

    monkeypatch.setattr(validation, "load_strategy", lambda text, overrides: Strategy())
    ended = run("strategies", "validate", str(strategy), "--format", form)
    assert ended.exit_code == ExitCode.DONE
    assert "demo" in ended.stdout


def test_a_file_that_is_not_there_is_a_usage_error(run: Run) -> None:
    ended = run("strategies", "validate", "none.yaml")
    assert ended.exit_code == ExitCode.USAGE
    assert "none.yaml cannot be read" in ended.complaint

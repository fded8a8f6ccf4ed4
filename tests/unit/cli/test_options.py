from pathlib import Path

import pytest
import typer

from backend.cli import options


def test_names_are_split_at_commas_and_trimmed() -> None:
    assert options.split_names("--symbols", "IBM, GOOG") == ("IBM", "GOOG")


def test_names_left_out_are_none_at_all() -> None:
    assert options.split_names("--symbols", None) == ()


@pytest.mark.parametrize("text", ["", " ", "IBM,", ",IBM", "IBM,,GOOG"])
def test_an_empty_name_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="has an empty name") as refused:
        options.split_names("--symbols", text)
    assert refused.value.param_hint == "'--symbols'"


def test_assignments_are_split_at_the_first_equals_sign() -> None:
    assert options.split_assignments(["a.b=1", "c=x=y", "d="]) == {"a.b": "1", "c": "x=y", "d": ""}


@pytest.mark.parametrize("text", ["epochs", "=20", " =20", ""])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not PATH=VALUE; write for example"):
        options.split_assignments([text])


def test_a_path_set_twice_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match=r"a\.b is given twice"):
        options.split_assignments(["a.b=1", "a.b=2"])


def test_a_strategy_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"cannot be read \(No such file"):
        options.read_strategy(tmp_path / "none.yaml", "--strategy")


def test_a_strategy_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"cannot be read \(Is a directory"):
        options.read_strategy(tmp_path, "--strategy")


def test_a_strategy_that_never_ends_is_refused_after_what_one_may_have() -> None:
    with pytest.raises(typer.BadParameter, match="/dev/zero is larger than the 4 MiB"):
        options.read_strategy(Path("/dev/zero"), "--strategy")


def test_a_strategy_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(typer.BadParameter, match=r"not a text file in UTF-8 \(byte 6\)"):
        options.read_strategy(path, "--strategy")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("picture.jpg", "does not end in .png"),
        ("folder.png", "is a folder"),
        ("none/picture.png", "there is no folder"),
    ],
)
def test_a_picture_that_cannot_be_saved_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(typer.BadParameter, match=problem):
        options.check_plot(tmp_path / name)


def test_a_picture_that_can_be_saved_is_taken(tmp_path: Path) -> None:
    assert tmp_path / "p.PNG" == options.check_plot(tmp_path / "p.PNG")


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e10])
def test_what_is_no_length_of_time_is_refused(seconds: float) -> None:
    with pytest.raises(typer.BadParameter, match="is not a number of seconds"):
        options.check_seconds("--timeout", seconds)


@pytest.mark.parametrize(
    ("variable", "address", "expected"),
    [
        (None, "127.0.0.1:50051", ""),
        (None, "far:1", " --backend far:1"),
        ("far:1", "far:1", ""),
        ("far:1", "127.0.0.1:50051", " --backend 127.0.0.1:50051"),
    ],
)
def test_a_suggested_command_names_the_backend_unless_it_is_reached_without(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, address: str, expected: str
) -> None:
    monkeypatch.delenv(options.ADDRESS_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(options.ADDRESS_VARIABLE, variable)
    assert expected == options.backend_argument(address)

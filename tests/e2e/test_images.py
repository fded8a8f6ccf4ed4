"""What the backend's image installs, installed in an environment of its own, without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.dockerfile import Image, pip, pip_install, read_images
from tests.support.programs import ROOT, SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TRAIN = ("models", "train", "--strategy", str(SMALL), "--symbols", "IBM", "--timeframes", "1d")
NOBODY = "127.0.0.1:1"
"""Where no training host listens."""


@dataclass(frozen=True, slots=True)
class Container:
    """The environment of an image, with a home of its own."""

    image: Image
    bin: Path
    home: Path

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The variables of a process here: none of those the tests run with."""
        own = {"PATH": str(self.bin), "HOME": str(self.home), "KTRDR_HOME": str(self.home)}
        return {**own, **settings}

    def words(self, command: list[str]) -> list[str]:
        """A command of the image, its program taken from this environment."""
        return [str(self.bin / command[0]), *command[1:]]

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.words([*command]),
            cwd=self.home,
            env=self.environment(settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    @contextmanager
    def serving(self, host: str, home: Path) -> Iterator[str]:
        """Run the image's command, with a training host at an address; give its own."""
        home.mkdir()
        settings = {
            "KTRDR_HOME": str(home),
            "KTRDR_BACKEND_ADDRESS": "127.0.0.1:0",
            "KTRDR_TRAINING_MODE": "host",
            "TRAINING_HOST_SERVICE_URL": host,
        }
        environment = self.environment(settings)
        with started(self.words(self.image.command), home, environment) as address:
            yield address


@contextmanager
def started(command: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a process; give the address on its ready line, and tell it to stop at the end."""
    path = folder / "log"
    with path.open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " ready on " in line, path.read_text("utf-8")
            yield line.partition(" ready on ")[2].strip()
            process.terminate()
            assert 0 == process.wait(30)
        finally:
            process.kill()
            process.communicate()


def build_context(folder: Path) -> Path:
    """Copy what .dockerignore lets through."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name in (line.removeprefix("!") for line in lines if line.startswith("!")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def bare_context(context: Path, folder: Path) -> Path:
    """Copy what the dependencies are installed from, beside an empty README."""
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(context / name, folder / name)
    (folder / "README.md").touch()
    return folder


def moved(words: list[str], wheel: Path) -> list[str]:
    """The words of a command with another folder for /wheel, and the wheel in it by its name."""
    words = [str(wheel) if word == "/wheel" else word for word in words]
    if words[-1] != "/wheel/*.whl":
        return words
    (built,) = wheel.glob("*.whl")
    return [*words[:-1], str(built)]


def run(words: list[str], folder: Path) -> None:
    """Run a step of the image's build; fail if it does."""
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=280
    )
    assert 0 == done.returncode, done.stderr


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    """The environment that the Dockerfile's own command installs."""
    images = read_images()
    context = build_context(tmp_path_factory.mktemp("context"))
    bare = bare_context(context, tmp_path_factory.mktemp("bare"))
    environment = tmp_path_factory.mktemp("image")
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    wheel = tmp_path_factory.mktemp("wheel")
    run([python, *pip_install(images, "backend")[1:]], bare)
    run([python, *moved(pip(images["package"], "wheel")[1:], wheel)], context)
    run([python, *moved(pip(images["backend"], "install")[1:], wheel)], bare)
    return Container(images["backend"], environment / "bin", tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def backend(container: Container) -> Iterator[str]:
    """The address of a backend that runs in that environment."""
    with container.serving(NOBODY, container.home / "backend") as address:
        yield address


def test_what_only_training_needs_is_not_there(container: Container) -> None:
    names = ["torch", "safetensors", "talib"]
    program = f"from importlib.util import find_spec as f; print([n for n in {names} if f(n)])"
    assert "[]\n" == container.run("python", "-c", program).stdout


def test_the_command_says_what_it_can(container: Container) -> None:
    done = container.run("ktrdr", "--help")
    assert (0, "") == (done.returncode, done.stderr)
    assert "operations" in done.stdout


def test_a_strategy_is_checked_without_what_training_needs(container: Container) -> None:
    done = container.run("ktrdr", "strategies", "validate", str(SMALL))
    assert (0, "") == (done.returncode, done.stderr)


def test_the_images_health_command_finds_the_backend_well(
    container: Container, backend: str
) -> None:
    *command, _ = container.image.health_command
    done = container.run(*command, backend)
    assert (0, f"The process at {backend} serves.\n") == (done.returncode, done.stdout)


def test_the_images_health_command_finds_out_that_nobody_is_there(container: Container) -> None:
    *command, _ = container.image.health_command
    assert 4 == container.run(*command, NOBODY).returncode


@pytest.mark.parametrize("group", ["operations", "models"])
def test_the_backend_answers_the_command(container: Container, backend: str, group: str) -> None:
    done = container.run("ktrdr", group, "list", "--backend", backend)
    assert 0 == done.returncode, done.stderr


def test_a_training_that_no_host_takes_is_refused_with_a_sentence(
    container: Container, backend: str
) -> None:
    done = container.run("ktrdr", *TRAIN, "--backend", backend)
    assert done.returncode != 0
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_training_runs_on_a_host_that_has_torch(container: Container, tmp_path: Path) -> None:
    settings = {"KTRDR_TRAINING_HOST_ADDRESS": "127.0.0.1:0", "KTRDR_HOME": str(tmp_path)}
    host = [sys.executable, "-m", "training_host"]
    with (
        started(host, tmp_path, settings) as there,
        container.serving(there, tmp_path / "backend") as address,
    ):
        done = container.run("ktrdr", *TRAIN, "--seed", "7", "--backend", address)
        found = container.run("ktrdr", "models", "list", "--backend", address)
    assert 0 == done.returncode, done.stderr
    assert "small/1d_v1" in found.stdout
    assert (tmp_path / "models" / "small" / "1d_v1").is_dir()


def test_the_image_refuses_to_train_itself_and_names_the_mend(container: Container) -> None:
    done = container.run(*container.image.command, KTRDR_TRAINING_MODE="local")
    assert 2 == done.returncode
    assert "KTRDR_TRAINING_MODE: " in done.stderr
    assert "set it to host" in done.stderr
    assert "Traceback" not in done.stderr

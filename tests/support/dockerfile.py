"""The project's Dockerfile, read for what its images are made of and how they run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.programs import ROOT

Instruction = tuple[str, str]
"""The word it begins with, and the rest."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a target ends as: its instructions after those of all it is built from."""

    instructions: tuple[Instruction, ...]

    def each(self, word: str) -> list[str]:
        """The rest of each instruction of a kind."""
        return [rest for kind, rest in self.instructions if kind == word]

    def last(self, word: str) -> str:
        """The rest of the last instruction of a kind; fail if there is none."""
        return self.each(word)[-1]

    @property
    def command(self) -> list[str]:
        """What the image runs; fail unless it is in exec form."""
        words: list[str] = json.loads(self.last("CMD"))
        return words

    @property
    def health_command(self) -> list[str]:
        """What says whether the process is well; fail unless it is in exec form."""
        words: list[str] = json.loads(self.last("HEALTHCHECK").partition("CMD")[2])
        return words

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables it sets."""
        words = (word.partition("=") for text in self.each("ENV") for word in shlex.split(text))
        return {name: value for name, _, value in words}


def read_images(text: str | None = None) -> dict[str, Image]:
    """Read every stage of a Dockerfile, the project's own unless given another."""
    text = (ROOT / "Dockerfile").read_text("utf-8") if text is None else text
    images: dict[str, Image] = {}
    name, instructions = "", list[Instruction]()
    for word, rest in _instructions(text):
        if word != "FROM":
            instructions.append((word, rest))
            images[name] = Image(tuple(instructions))
            continue
        base, _, name = (part.strip() for part in rest.partition(" AS "))
        instructions = list(images[base].instructions) if base in images else []
        images[name] = Image(tuple(instructions))
    return images


def pip_install(images: Mapping[str, Image], target: str) -> list[str]:
    """The words of the `pip install` that makes the environment a target takes over."""
    copied = re.fullmatch(r"--from=(\S+) (\S+) \2", images[target].last("COPY"))
    assert copied is not None, f"{target} copies no environment"
    return pip(images[copied[1]], "install")


def pip(image: Image, command: str) -> list[str]:
    """The words of the pip command that a stage runs last; fail if that is another."""
    words = [word for word in shlex.split(image.last("RUN")) if not word.startswith("--mount=")]
    assert ["python", "-m", "pip", command] == words[:4]
    return words


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    parts = (line.split(maxsplit=1) for line in whole if line.strip())
    return [(word.upper(), " ".join(rest.split())) for word, rest in parts]

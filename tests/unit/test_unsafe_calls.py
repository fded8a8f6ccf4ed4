"""Nothing that is read, from a client or from a file, is ever run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for package in ("shared", "backend", "training_host", "ib_host")
    for path in sorted((ROOT / package).rglob("*.py"))
]
UNPICKLING = ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle")
"""Modules that run what they read."""
RUNNING = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "torch.load",
    "torch.save",
    "np.load",
    "np.save",
    "pd.read_pickle",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
}
"""Calls that run what they read, or write what only such calls can read."""
LOADERS = {
    "yaml.Loader",
    "yaml.UnsafeLoader",
    "yaml.FullLoader",
    "yaml.CLoader",
    "yaml.CFullLoader",
}


def dangers(source: str) -> Iterator[str]:
    """What a module does that could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (a.name for a in names if a.name.split(".")[0] in UNPICKLING)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLING:
                yield module
            case ast.Call(func=func) if ast.unparse(func) in RUNNING:
                yield ast.unparse(func)
            case ast.Attribute() if ast.unparse(node) in LOADERS:
                yield ast.unparse(node)
            case ast.Call(keywords=keywords):
                risky = {"allow_pickle": "True", "shell": "True", "weights_only": "False"}
                yield from (
                    f"{word.arg}={ast.unparse(word.value)}"
                    for word in keywords
                    if word.arg in risky and ast.unparse(word.value) == risky[word.arg]
                )


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from joblib import load", "joblib"),
        ("import torch\ntorch.load(path)", "torch.load"),
        ("yaml.load(text, Loader=yaml.SafeLoader)", "yaml.load"),
        ("class L(yaml.FullLoader): pass", "yaml.FullLoader"),
        ("numpy.load(path, allow_pickle=True)", "allow_pickle=True"),
        ("subprocess.run(text, shell=True)", "shell=True"),
        ("eval(text)", "eval"),
    ],
)
def test_the_checker_catches(source: str, danger: str) -> None:
    assert [danger] == list(dangers(source))


def test_the_checker_lets_pass() -> None:
    assert [] == list(
        dangers("network.eval()\nimport pickles\nyaml.parse(x, Loader=yaml.SafeLoader)")
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path: Path) -> None:
    assert [] == list(dangers(path.read_text("utf-8")))

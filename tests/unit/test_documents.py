"""What the documents say is compared with what there is."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import pytest
import typer

from backend.cli.app import app
from backend.settings import BackendSettings
from ib_host.settings import IbHostSettings
from shared.operations.model import TRANSITIONS
from shared.rpc.errors import Code, KtrdrError
from shared.settings import ProcessSettings
from training_host.settings import TrainingHostSettings

ROOT = Path(__file__).parents[2]
OUTSIDE = ("http://", "https://", "mailto:")
FENCE = re.compile(r"^(`{3,})([a-z]*)[^\n]*\n(.*?)^\1[ ]*$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
VARIABLE = re.compile(r"\b(?:KTRDR_[A-Z_]*[A-Z]|[A-Z]+_(?:CACHE_TTL|HOST_SERVICE_URL))\b")
MAKE = re.compile(r"(?:^|[\s;&|(])make ([a-z][a-z-]*)")
TREE_ROOT = "ktrdr/"
MIGRATION_GUIDE = "docs/architecture/operations/migration-guide.md"
OPERATIONS_DOCUMENTS = (
    "README",
    "api-reference",
    "migration-guide",
    "production",
    "python-reference",
    "runbook",
    "standard-clients",
)
RUNBOOK = "docs/architecture/operations/runbook.md"
SETTINGS: Mapping[str, type[ProcessSettings]] = {
    "backend": BackendSettings,
    "training_host": TrainingHostSettings,
    "ib_host": IbHostSettings,
}
PROGRAM = {"shared", *SETTINGS}
"""The folders of handwritten code that is not a test."""


# --------------------------------------------------------------------- what there is


def project_files() -> list[Path]:
    """Every file that is not ignored, relative to the root; needs no git."""
    lines = (ROOT / ".gitignore").read_text("utf-8").split()
    ignored = [line.strip("/") for line in lines] + [".git"]

    def kept(name: str) -> bool:
        return not any(fnmatch(name, pattern) for pattern in ignored)

    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if kept(name)]
        found += [Path(folder, name).relative_to(ROOT) for name in names if kept(name)]
    return sorted(found)


FILES = project_files()
DOCUMENTS = [path.as_posix() for path in FILES if path.suffix == ".md"]


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", text_of("Makefile"), re.MULTILINE))


def modules() -> list[str]:
    """Every module of the program."""
    return [p.as_posix() for p in FILES if p.suffix == ".py" and p.parts[0] in PROGRAM]


def settings_of(process: str) -> dict[str, str]:
    """Every environment variable that a process reads, with its default."""
    return {
        str(field.validation_alias or f"KTRDR_{name.upper()}"): _shown(field.default)
        for name, field in SETTINGS[process].model_fields.items()
    }


def settings() -> dict[str, str]:
    """Every environment variable that any process reads, with its default."""
    return {name: default for process in SETTINGS for name, default in settings_of(process).items()}


def _shown(default: object) -> str:
    """A default as it is typed."""
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, bool):
        return str(default).lower()
    return "unset" if default is None else str(default)


def locks() -> Iterator[str]:
    """Every attribute that holds a lock, as `Class.attribute`."""
    for module in modules():
        for node in ast.walk(ast.parse(text_of(module))):
            if isinstance(node, ast.ClassDef):
                found = re.findall(r"self\.(\w+) = threading\.R?Lock\(\)", ast.unparse(node))
                yield from (f"{node.name}.{attribute}" for attribute in found)


def reasons() -> set[str]:
    """Every reason that an error may carry."""
    return {reason for module in modules() for reason in _reasons_of(ast.parse(text_of(module)))}


def _reasons_of(tree: ast.Module) -> Iterator[str]:
    """What is assigned to or passed as `reason`, and where a call has it without its name."""
    for node in ast.walk(tree):
        found: ast.expr | None = None
        match node:
            case ast.Assign(targets=[ast.Name(id="reason")], value=found):
                pass
            case ast.AnnAssign(target=ast.Name(id="reason"), value=found):
                pass
            case ast.keyword(arg="reason", value=found):
                pass
            case ast.Call(func=ast.Name(id="OperationError" | "Diagnosis"), args=[_, found, *_]):
                pass
            case ast.Call(func=ast.Name(id="_fails"), args=[found, *_]):
                pass
        if isinstance(found, ast.Constant) and found.value:
            yield str(found.value)


def error_classes(root: type[KtrdrError]) -> Iterator[type[KtrdrError]]:
    """An error and everything derived from it."""
    yield root
    for kind in root.__subclasses__():
        yield from error_classes(kind)


def parse_command(arguments: Sequence[str]) -> None:
    """Parse a `ktrdr` command line without running it; raises what typer raises."""
    name, context = "ktrdr", None
    command: Any = typer.main.get_command(app)
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, list(arguments), parent=context)
        rest = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, rest)
    command.make_context(name, list(arguments), parent=context)


# ------------------------------------------------------------- what the documents say


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", text)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks in one of these languages."""
    return [body for _, language, body in FENCE.findall(text) if language in languages]


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level, up to the next one."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0] + "\n"


def links(text: str) -> list[str]:
    """The targets of links and pictures that lie in the project."""
    targets = LINK.findall(INLINE.sub("", prose(text)))
    return [target for target in targets if not target.startswith(OUTSIDE)]


def anchors(text: str) -> set[str]:
    """The anchors that a document's headings get."""
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(text)))
    return {title.replace(" ", "-") for title in words}


def shell_lines(text: str) -> Iterator[str]:
    """What readers type: whole sh blocks, `$` lines of others, and inline code."""
    for block in blocks(text, "sh", "bash", "shell"):
        yield from block.replace("\\\n", " ").splitlines()
    for block in blocks(text, "console", "text", ""):
        yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))
    yield from INLINE.findall(prose(text))


def ktrdr_commands(text: str) -> Iterator[list[str]]:
    """The arguments of each `ktrdr` command, up to a pipe or another end of it."""
    for line in shell_lines(text):
        if "ktrdr " not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a string that goes on in the next line is no command of ours
            continue
        for place, word in enumerate(words):
            if word == "ktrdr" or word.endswith("/ktrdr"):
                rest = words[place + 1 :]
                end = next((i for i, w in enumerate(rest) if w[0] in "|&;()<>#"), len(rest))
                if rest[:end]:
                    yield rest[:end]


def tables(text: str, *header: str) -> list[list[list[str]]]:
    """The rows of each table whose header begins with these cells; code marks are left out."""
    found: list[list[list[str]]] = []
    for table in re.findall(r"(?:^\|.*\|[ ]*\n)+", prose(text) + "\n", re.MULTILINE):
        rows = [
            [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
            for line in table.splitlines()
        ]
        if rows[0][: len(header)] == list(header):
            found.append(rows[2:])
    return found


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One line of the README's tree."""

    path: str
    """Relative to the root; ends in "/" if it names a folder."""
    description: str


def tree(text: str) -> list[TreeEntry]:
    """Read the block that starts with the line `ktrdr/`.

    A line is an indent (spaces or box-drawing characters, deeper than that of
    the folder it lies in), a path without spaces, and, after two spaces or more,
    a description.
    """
    starts = (block for block in blocks(text, "", "text") if block.split()[:1] == [TREE_ROOT])
    lines = next(starts, "").splitlines()[1:]
    entries = []
    folders: list[tuple[int, str]] = []
    for line in filter(str.strip, lines):
        content = line.lstrip(" │├└─\u00a0")
        indent = len(line) - len(content)
        name, _, description = content.partition(" ")
        while folders and folders[-1][0] >= indent:
            folders.pop()
        path = (folders[-1][1] if folders else "") + name
        entries.append(TreeEntry(path, description.strip()))
        if name.endswith("/"):
            folders.append((indent, path))
    return entries


# ------------------------------------------------------------------ the readers themselves

SAMPLE = """# Title

See [the model](shared/operations/model.py), [below](#the-tree), [web](https://example.org)
and `[code](no/link)`. Run `make test`, or `ktrdr operations list --active | head`.

```sh
make setup && make demo
timeout 5 .venv/bin/ktrdr operations get \\
  op_1 --refresh > out.txt
```

```
ktrdr/
  shared/          what two processes use
    clock.py       time
    rpc/errors.py  errors
  Makefile         what to run
```

| Variable | Default |
|---|---|
| `KTRDR_HOME` | `~/.ktrdr` |

## The tree
"""


def test_links_are_found_outside_code() -> None:
    assert ["shared/operations/model.py", "#the-tree"] == links(SAMPLE)
    assert {"title", "the-tree"} == anchors(SAMPLE)


def test_commands_are_found_inline_and_in_blocks_and_end_at_a_pipe() -> None:
    assert [
        ["operations", "get", "op_1", "--refresh"],
        ["operations", "list", "--active"],
    ] == list(ktrdr_commands(SAMPLE))


def test_a_tree_is_read_by_its_indentation() -> None:
    expected = [
        TreeEntry("shared/", "what two processes use"),
        TreeEntry("shared/clock.py", "time"),
        TreeEntry("shared/rpc/errors.py", "errors"),
        TreeEntry("Makefile", "what to run"),
    ]
    drawn = "```text\nktrdr/\n├── shared/  what two processes use\n│   ├── clock.py  time\n"
    drawn += "│   └── rpc/errors.py  errors\n└── Makefile  what to run\n```\n"
    assert expected == tree(SAMPLE)
    assert expected == tree(drawn)


def test_tables_are_found_by_their_header() -> None:
    assert [[["KTRDR_HOME", "~/.ktrdr"]]] == tables(SAMPLE, "Variable")
    assert [] == tables(SAMPLE, "From", "To")


@pytest.mark.parametrize(
    "line", ["operations get", "operations get x --fresh", "operation list", "models train"]
)
def test_a_command_that_does_not_parse_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|Missing"):
        parse_command(line.split())


# ------------------------------------------------------------------------ the documents


def test_the_documents_are_found() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} <= set(DOCUMENTS)
    assert {
        "docs/testing/e2e-local-training-pull.md",
        "docs/testing/e2e-host-training-pull.md",
        "docs/testing/e2e-data-loading-pull.md",
        "docs/tws-simulator.md",
        *(f"docs/architecture/operations/{name}.md" for name in OPERATIONS_DOCUMENTS),
    } <= set(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    broken = []
    for link in links(text_of(document)):
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert [] == broken


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_that_is_named_exists(document: str) -> None:
    named = {name for line in shell_lines(text_of(document)) for name in MAKE.findall(line)}
    assert set() == named - make_targets()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_line_parses(document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KTRDR_BACKEND_ADDRESS", raising=False)
    failed: dict[str, str] = {}
    for arguments in ktrdr_commands(text_of(document)):
        try:
            parse_command(arguments)
        except typer.Exit:
            pass  # --help
        except Exception as error:  # noqa: BLE001  # whatever typer raises is a finding
            failed[" ".join(arguments)] = f"{type(error).__name__}: {error}"
    assert {} == failed


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_variable_that_is_named_is_a_setting(document: str) -> None:
    assert set() == set(VARIABLE.findall(text_of(document))) - settings().keys()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_settings_table_names_the_true_defaults(document: str) -> None:
    known = settings()
    for rows in tables(text_of(document), "Variable", "Default"):
        named = {row[0]: row[1] for row in rows}
        assert {name: known.get(name) for name in named} == named


def test_the_architecture_names_every_setting_and_who_reads_it() -> None:
    (rows,) = tables(text_of("ARCHITECTURE.md"), "Variable", "Default", "Read by")
    known = settings()
    readers = {name: [p for p in SETTINGS if name in settings_of(p)] for name in known}
    everybody = list(SETTINGS)
    expected = {
        name: "all" if found == everybody else ", ".join(found) for name, found in readers.items()
    }
    assert expected == {row[0]: row[2] for row in rows}
    assert len(rows) == len(known)


def test_the_lifecycle_table_is_the_one_in_the_code() -> None:
    (rows,) = tables(text_of("ARCHITECTURE.md"), "From", "To")
    expected = sorted(
        (before.value, after.value if after else "")
        for before, followers in TRANSITIONS.items()
        for after in followers or {None}
    )
    assert expected == sorted((row[0], row[1]) for row in rows)


def test_the_table_of_locks_names_every_lock() -> None:
    (rows,) = tables(text_of("ARCHITECTURE.md"), "Lock")
    assert sorted(locks()) == sorted(row[0] for row in rows)


NEVER_ANSWERED = {
    "ADDRESS_UNUSABLE": "stops the start of a process, with a sentence",
    "CREDENTIALS_UNUSABLE": "stops a start as well, or the command",
    "ILLEGAL_TRANSITION": "raised where a defect of ours would end an operation twice",
    "IB_NO_DATA": "the load goes on with the next request",
    "IB_NO_HEAD": "the load goes on without knowing when the bars begin",
    "SERIES_FAILED": "every provider has reasons of its own",
}


def test_the_runbook_names_every_reason_but_those_that_say_no_more_than_their_code() -> None:
    named = {row[0] for rows in tables(text_of(RUNBOOK), "reason") for row in rows}
    found = reasons()
    assert len(named) > 10
    assert set() == named - found
    assert set() == found - named - NEVER_ANSWERED.keys() - {code.name for code in Code}


def test_the_runbook_has_a_cause_and_a_mend_for_every_reason() -> None:
    rows = [row for table in tables(text_of(RUNBOOK), "reason") for row in table]
    assert [] == [row for row in rows if not all(row)]


def test_the_runbook_names_the_code_that_each_error_has() -> None:
    (rows,) = tables(text_of(RUNBOOK), "reason", "code", "cause", "mend")
    classes = {kind.reason: kind.code.name for kind in error_classes(KtrdrError)}
    named = {row[0]: row[1] for row in rows}
    assert {} == {
        reason: (code, classes[reason])
        for reason, code in named.items()
        if reason in classes and classes[reason] != code
    }


def test_every_path_in_the_readmes_tree_exists_once() -> None:
    paths = [entry.path for entry in tree(text_of("README.md"))]
    folders = {f"{parent.as_posix()}/" for path in FILES for parent in path.parents}
    existing = {path.as_posix() for path in FILES} | folders
    assert paths, f"README.md has no fenced block that starts with the line {TREE_ROOT}"
    assert [] == [path for path in paths if path not in existing]
    assert len(set(paths)) == len(paths)


def test_every_module_is_in_the_readmes_tree_with_its_first_sentence() -> None:
    """A folder's line stands for its `__init__.py`."""
    named = {entry.path: entry.description for entry in tree(text_of("README.md"))}
    found = {module.removesuffix("__init__.py"): _first_sentence(module) for module in modules()}
    told = {path: named.get(path, "is missing") for path in found}
    # Within a line, a sentence begins small and ends without a full stop.
    assert {p: s.lower() for p, s in found.items()} == {p: s.lower() for p, s in told.items()}


def _first_sentence(module: str) -> str:
    docstring = ast.get_docstring(ast.parse(text_of(module))) or ""
    return " ".join(docstring.partition("\n\n")[0].split()).removesuffix(".")


# ------------------------------------------------------------------- the worked example

EXAMPLE_FILE = re.compile(
    r"`((?:protos|shared|tests)/[\w/.]+)`\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fragment of the example goes: `how` to which line of which file."""

    path: str
    line: str
    how: Literal["after", "before", "instead"] = "after"

    def put(self, fragment: str, text: str) -> str:
        """Return the file's text with the fragment in its place."""
        kept = {"after": self.line + fragment, "before": fragment + self.line, "instead": fragment}
        return text.replace(self.line, kept[self.how], 1)


PLACES: Mapping[str, Place] = {
    "OPERATION_TYPE_SERIES_CHECK = 3": Place(
        "protos/ktrdr/operations/v1/operation.proto", "  OPERATION_TYPE_DATA_LOADING = 2;\n"
    ),
    'SERIES_CHECK = "SERIES_CHECK"': Place(
        "shared/operations/model.py", '    DATA_LOADING = "DATA_LOADING"\n'
    ),
    'SERIES_CHECK = "series-check"': Place(
        "backend/cli/commands/operations.py", '    DATA_LOADING = "data-loading"\n'
    ),
    "checks = WorkerPool(": Place("backend/__main__.py", "    services = [\n", "before"),
    "series_check_service(SeriesCheckServicer(": Place("backend/__main__.py", "    services = [\n"),
    "pools = tuple(": Place(
        "backend/__main__.py",
        "    pools = tuple(pool for pool in (training.pool, data.pool) if pool is not None)\n",
        "instead",
    ),
    "import SeriesCheckServicer": Place(
        "backend/__main__.py", "from backend.settings import BackendSettings\n"
    ),
}
"""Where each fragment of the example goes, by what it contains."""


def follow_the_example(project: Path) -> list[str]:
    """Do in a copy of the project what the migration guide says; return the new tests."""
    for name in (*PROGRAM, "protos/ktrdr", "strategies", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, project / name, ignore=ignored)
    text = section(text_of(MIGRATION_GUIDE), "Add an operation type")
    files = dict(EXAMPLE_FILE.findall(text))
    for path, content in files.items():
        assert not (ROOT / path).exists()
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(content, "utf-8")
    fragments = [block for block in blocks(text, "proto", "python") if block not in files.values()]
    assert len(PLACES) == len(fragments)
    for key, place in PLACES.items():
        (fragment,) = (fragment for fragment in fragments if key in fragment)
        before = (project / place.path).read_text("utf-8")
        assert place.line in before
        (project / place.path).write_text(place.put(fragment, before), "utf-8")
    return [path for path in files if path.startswith("tests/")]


def run(project: Path, *command: str) -> None:
    """Run a Python module in the project, which comes before the installed one."""
    paths = [str(project), str(project / "protos" / "gen")]
    # This run's own settings, such as a worker's name, are not the other's.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={**kept, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_worked_example_works_as_written(tmp_path: Path) -> None:
    tests = follow_the_example(tmp_path)
    protos = [str(path) for path in sorted((tmp_path / "protos").rglob("*.proto"))]
    gen = tmp_path / "protos" / "gen"
    gen.mkdir()

    out = [f"--python_out={gen}", f"--grpc_python_out={gen}"]
    run(tmp_path, "grpc_tools.protoc", f"-I{tmp_path / 'protos'}", *out, *protos)
    run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *tests)

"""The reference of Python classes: their signatures and docstrings, read without importing them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from docs.reference.markdown import NOTE, paragraphs, table

ROOT = Path(__file__).resolve().parents[2]
_WIDTH = 88

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Shown:
    """A class that the reference shows."""

    name: str
    module: str
    also: Sequence[str] = ()
    """Methods for subclasses, which begin with an underscore."""


@dataclass(frozen=True, slots=True)
class Section:
    """Some classes under a heading."""

    title: str
    text: str
    classes: Sequence[Shown]


def markdown(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """Return the whole document."""
    lines = [f"# {title}", "", NOTE, "", *introduction.splitlines()]
    for section in sections:
        lines += ["", f"## {section.title}", "", section.text]
        for shown in section.classes:
            lines += _class(shown)
    return "\n".join(lines) + "\n"


def _class(shown: Shown) -> Iterator[str]:
    path = ROOT / f"{shown.module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text("utf-8"))
    (node,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == shown.name)
    yield from ("", f"### {shown.name}", "")
    yield f"From [`{shown.module}`](../../../{path.relative_to(ROOT).as_posix()})."
    yield ""
    yield from _docstring(node)
    yield from _fields(node)
    for method in node.body:
        if isinstance(method, Function) and _public(method.name, shown.also):
            yield from _method(shown, method)


def _public(name: str, also: Sequence[str]) -> bool:
    return name == "__init__" or name in also or not name.startswith("_")


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """The fields of a dataclass, each with the string that stands under it."""
    rows = []
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or "ClassVar" in ast.unparse(statement):
            continue
        default = f" = {ast.unparse(statement.value)}" if statement.value else ""
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = " ".join(str(following.value.value).split())
        name, kind = ast.unparse(statement.target), ast.unparse(statement.annotation)
        rows.append((f"`{name}`", _code(f"{kind}{default}"), meaning))
    if rows:
        yield ""
        yield from table(("field", "type", "meaning"), rows)


def _code(text: str) -> str:
    """Code in a cell of a table."""
    return f"`{text}`".replace("|", "\\|")


def _method(shown: Shown, method: Function) -> Iterator[str]:
    if method.name == "__init__" and len(method.args.args + method.args.kwonlyargs) == 1:
        return
    yield from ("", f"#### {heading(shown, method.name)}", "")
    yield "```python"
    yield from _signature(shown.name, method)
    yield "```"
    if ast.get_docstring(method):
        yield ""
        yield from _docstring(method)


def heading(shown: Shown, method: str) -> str:
    """The heading of a method; the class's name tells those of one name apart."""
    return shown.name + "()" if method == "__init__" else f"{shown.name}.{method}"


def _signature(owner: str, method: Function) -> Iterator[str]:
    """The signature without `self`; a line for each parameter if it would be long."""
    arguments = method.args
    arguments.args = [*arguments.posonlyargs, *arguments.args][1:]
    name = owner if method.name == "__init__" else method.name
    returns = (
        "" if method.name == "__init__" or method.returns is None else _unparsed(method.returns)
    )
    answer = f" -> {returns}" if returns else ""
    if any(ast.unparse(decorator) == "property" for decorator in method.decorator_list):
        yield f"{name}: {returns}"
        return
    parameters = list(_parameters(arguments))
    whole = f"{name}({', '.join(parameters)}){answer}"
    if len(whole) <= _WIDTH:
        yield whole
        return
    yield f"{name}("
    yield from (f"    {parameter}," for parameter in parameters)
    yield f"){answer}"


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    """Each parameter with its type and default, and the stars between them."""
    gap = len(arguments.args) - len(arguments.defaults)
    for place, argument in enumerate(arguments.args):
        yield _parameter(argument, arguments.defaults[place - gap] if place >= gap else None)
    if arguments.vararg is not None:
        yield f"*{_unparsed(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(argument, default)
    if arguments.kwarg is not None:
        yield f"**{_unparsed(arguments.kwarg)}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    return _unparsed(argument) + ("" if default is None else f" = {_unparsed(default)}")


def _unparsed(node: ast.AST) -> str:
    """Code as ruff would quote it."""
    return ast.unparse(node).replace("'", '"')


def _docstring(node: ast.ClassDef | Function) -> Iterator[str]:
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    for index, paragraph in enumerate(paragraphs(text)):
        if index:
            yield ""
        yield paragraph

"""Which codes a method may answer with, from the comments of the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from grpc import StatusCode

PROTOS = Path(__file__).parents[2] / "protos"
ALWAYS = frozenset({StatusCode.OK, StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED})
"""Every method may take a request, find it malformed, or have no place for it."""
_STANDARD = "/google.longrunning.Operations"
_AS_OURS = ALWAYS | {
    StatusCode.NOT_FOUND,
    StatusCode.UNAVAILABLE,
    StatusCode.FAILED_PRECONDITION,
}
FOREIGN: Mapping[str, frozenset[StatusCode]] = {
    f"{_STANDARD}/GetOperation": _AS_OURS,
    f"{_STANDARD}/ListOperations": _AS_OURS - {StatusCode.NOT_FOUND},
    f"{_STANDARD}/CancelOperation": _AS_OURS,
    f"{_STANDARD}/WaitOperation": _AS_OURS,
    f"{_STANDARD}/DeleteOperation": _AS_OURS,
    "/grpc.health.v1.Health/Check": ALWAYS | {StatusCode.NOT_FOUND},
    "/grpc.health.v1.Health/List": ALWAYS,
    "/grpc.health.v1.Health/Watch": ALWAYS,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ALWAYS,
}
"""Methods whose contract is not ours."""
_PACKAGE = re.compile(r"^package ([\w.]+);", re.MULTILINE)
_BLOCK = re.compile(r"((?:^[ ]*//.*\n)+)[ ]*(service|rpc) (\w+)", re.MULTILINE)
_LIKE = re.compile(r"Errors as (\w+)'s")


@cache
def documented_codes() -> Mapping[str, frozenset[StatusCode]]:
    """The codes of each method by its full name."""
    comments = dict(_comments())
    own = {m: ALWAYS | _named(text + _referred(text, comments)) for m, text in comments.items()}
    return {**FOREIGN, **own}


def _comments() -> Iterator[tuple[str, str]]:
    """What stands above each method, with what stands above its service."""
    for path in sorted(PROTOS.glob("ktrdr/**/*_service.proto")):
        text = path.read_text("utf-8")
        (package,) = _PACKAGE.findall(text)
        service, about = "", ""
        for comment, kind, name in _BLOCK.findall(text):
            if kind == "service":
                service, about = f"{package}.{name}", comment
            else:
                yield f"/{service}/{name}", about + comment


def _referred(text: str, comments: Mapping[str, str]) -> str:
    """What stands above the method that a comment refers to."""
    referred = _LIKE.search(text)
    ends = f"/{referred[1]}" if referred else "-"
    return "".join(comment for method, comment in comments.items() if method.endswith(ends))


def _named(text: str) -> frozenset[StatusCode]:
    return frozenset(code for code in StatusCode if re.search(rf"\b{code.name}\b", text))

"""The reference of the contract: every service, message and enum, in the words of the protos."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)

from docs.reference.descriptors import ENUM, MEMBER, MESSAGE, SERVICE, Place, ProtoFile
from docs.reference.markdown import NOTE, anchor, paragraphs, plain, table

INTRODUCTION = """\
Every service, message and enum of the contract, as the comments in
[protos/ktrdr](../../../protos/ktrdr) describe them. How errors are carried, and what to do about
each reason, is in the [runbook](runbook.md); the rules behind the contract are in
[ARCHITECTURE.md](../../../ARCHITECTURE.md#the-contract). A server describes the same by reflection:
`grpcurl -plaintext 127.0.0.1:50051 describe ktrdr.operations.v1.OperationsService`.
"""
WELL_KNOWN = "https://protobuf.dev/reference/protobuf/google.protobuf/#"
SCALARS = {
    getattr(FieldDescriptorProto, name): name.removeprefix("TYPE_").lower()
    for name, _ in FieldDescriptorProto.Type.items()
}
PROMISES = {
    MethodOptions.NO_SIDE_EFFECTS: "Changes nothing.",
    MethodOptions.IDEMPOTENT: "Idempotent.",
}
_FULL_NAME = re.compile(r"\bktrdr(?:\.[a-z]\w*)+(?:\.[A-Z]\w*)+")


@dataclass(frozen=True, slots=True)
class Reference:
    """Writes the reference of these files."""

    files: Sequence[ProtoFile]

    def markdown(self) -> str:
        """Return the whole document."""
        lines = ["# API reference", "", NOTE, "", *INTRODUCTION.splitlines(), "", *self._contents()]
        for package in self._packages():
            lines += ["", f"## {package}"]
            for file in self._of(package):
                lines += self._file(file)
        return "\n".join(lines) + "\n"

    # ---------------------------------------------------------------- the whole

    def _packages(self) -> list[str]:
        """All packages, that of operations first: every other one builds on it."""
        found = {file.descriptor.package for file in self.files}
        return sorted(found, key=lambda package: (package != "ktrdr.operations.v1", package))

    def _of(self, package: str) -> list[ProtoFile]:
        """The files of a package, services first."""
        found = [file for file in self.files if file.descriptor.package == package]
        return sorted(found, key=lambda file: (not file.descriptor.service, file.descriptor.name))

    def _contents(self) -> Iterator[str]:
        rows = (
            (
                f"[{package}](#{anchor(package)})",
                self._links(package, "service"),
                self._links(package, "message_type", "enum_type"),
            )
            for package in self._packages()
        )
        return table(("package", "services", "messages and enums"), rows)

    def _links(self, package: str, *kinds: str) -> str:
        """Links to what a package has of these kinds; requests are found by their method."""
        files = [file.descriptor for file in self._of(package)]
        names = [item.name for kind in kinds for file in files for item in getattr(file, kind)]
        shown = [name for name in names if not name.endswith(("Request", "Response"))]
        return ", ".join(self._link(f"{package}.{name}") for name in shown)

    # ------------------------------------------------------------------ a file

    def _file(self, file: ProtoFile) -> Iterator[str]:
        for index, service in enumerate(file.descriptor.service):
            yield from self._service(file, service, (SERVICE, index))
        for index, message in enumerate(file.descriptor.message_type):
            yield from self._message(file, message, (MESSAGE, index))
        for index, enum in enumerate(file.descriptor.enum_type):
            yield from self._enum(file, enum, (ENUM, index))

    def _service(
        self, file: ProtoFile, service: ServiceDescriptorProto, place: Place
    ) -> Iterator[str]:
        yield from ("", f"### {service.name}", "")
        yield from self._comment(file, place)
        for index, method in enumerate(service.method):
            yield from ("", f"#### {method.name}", "")
            yield self._signature(method)
            yield ""
            yield from self._comment(file, (*place, MEMBER, index))

    def _signature(self, method: MethodDescriptorProto) -> str:
        answer = (
            f"{'stream of ' if method.server_streaming else ''}{self._link(method.output_type)}"
        )
        promise = PROMISES.get(method.options.idempotency_level, "")
        signature = f"`{method.name}`({self._link(method.input_type)}) → {answer}."
        return f"{signature} {promise}".rstrip()

    def _message(self, file: ProtoFile, message: DescriptorProto, place: Place) -> Iterator[str]:
        yield from ("", f"### {message.name}", "")
        yield from self._comment(file, place)
        if message.field:
            yield ""
            rows = (
                (f"`{field.name}`", self._type(message, field), self._cell(file, place, index))
                for index, field in enumerate(message.field)
            )
            yield from table(("field", "type", "meaning"), rows)

    def _enum(self, file: ProtoFile, enum: EnumDescriptorProto, place: Place) -> Iterator[str]:
        yield from ("", f"### {enum.name}", "")
        yield from self._comment(file, place)
        yield ""
        rows = (
            (f"`{value.name}`", str(value.number), self._cell(file, place, index))
            for index, value in enumerate(enum.value)
        )
        yield from table(("value", "number", "meaning"), rows)

    # -------------------------------------------------------------------- words

    def _comment(self, file: ProtoFile, place: Place) -> Iterator[str]:
        for index, paragraph in enumerate(paragraphs(file.comments[place])):
            if index:
                yield ""
            yield self._linked(paragraph)

    def _cell(self, file: ProtoFile, place: Place, index: int) -> str:
        return " ".join(map(self._linked, paragraphs(file.comments[(*place, MEMBER, index)])))

    def _linked(self, text: str) -> str:
        """Text in which the full names of what is described here are links."""
        return _FULL_NAME.sub(lambda found: self._link(found[0], shown=found[0]), plain(text))

    def _type(self, message: DescriptorProto, field: FieldDescriptorProto) -> str:
        entries = {nested.name: nested for nested in message.nested_type}
        entry = entries.get(field.type_name.rpartition(".")[2])
        if entry is not None and entry.options.map_entry:
            key, value = (self._type(entry, part) for part in entry.field)
            return f"map of {key} to {value}"
        name = self._link(field.type_name) if field.type_name else SCALARS[field.type]
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {name}"
        if field.proto3_optional:
            return f"optional {name}"
        if field.HasField("oneof_index"):
            return f"{name}, one of `{message.oneof_decl[field.oneof_index].name}`"
        return name

    def _link(self, full_name: str, shown: str = "") -> str:
        """A link to where something is described; its plain name if that is not known."""
        full_name = full_name.removeprefix(".")
        name = full_name.rpartition(".")[2]
        if full_name.startswith("google.protobuf."):
            return f"[{name}]({WELL_KNOWN}{name.lower()})"
        if full_name in self._described():
            return f"[{shown or name}](#{anchor(name)})"
        return shown or name

    def _described(self) -> set[str]:
        """The full names of everything with a heading; raises ValueError if two share one."""
        names = list(self._headings())
        titles = Counter(anchor(name.rpartition(".")[2]) for name in names)
        if shared := [title for title, count in titles.items() if count > 1]:
            raise ValueError(f"several headings would have these anchors: {', '.join(shared)}")
        return set(names)

    def _headings(self) -> Iterator[str]:
        for file in (file.descriptor for file in self.files):
            for kind in (file.message_type, file.enum_type, file.service):
                yield from (f"{file.package}.{item.name}" for item in kind)
            for service in file.service:
                yield from (f"{file.package}.{service.name}.{m.name}" for m in service.method)

"""The contract as protoc sees it: descriptors with the comments that stand above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parents[2] / "protos"

Place = tuple[int, ...]
"""Where something stands in a file, as SourceCodeInfo names it."""

MESSAGE, ENUM, SERVICE = 4, 5, 6
"""The fields of FileDescriptorProto that hold these; the first number of a place."""
MEMBER = 2
"""The field that holds a message's fields, an enum's values and a service's methods."""


@dataclass(frozen=True, slots=True)
class ProtoFile:
    """One file of the contract."""

    descriptor: FileDescriptorProto
    comments: Mapping[Place, str]
    """By place; what has no comment is not there."""


def read_contract() -> list[ProtoFile]:
    """Compile every file of the contract; raises RuntimeError if protoc refuses it."""
    names = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("ktrdr/**/*.proto"))
    with TemporaryDirectory() as folder:
        out = Path(folder, "contract.binpb")
        options = ["--include_source_info", f"--descriptor_set_out={out}"]
        google = resources.files("grpc_tools") / "_proto"
        if protoc.main(["protoc", f"-I{PROTOS}", f"-I{google}", *options, *names]) != 0:
            raise RuntimeError("protoc refuses the contract; what it said stands above")
        files = FileDescriptorSet.FromString(out.read_bytes()).file
    return [ProtoFile(file, _comments(file)) for file in files if file.name in names]


def _comments(file: FileDescriptorProto) -> Mapping[Place, str]:
    return {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
        if location.leading_comments
    }

"""The contract, as its descriptors tell it: every service, every method."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from google.longrunning import operations_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

import ktrdr

STANDARD: ServiceDescriptor = operations_pb2.DESCRIPTOR.services_by_name["Operations"]
"""The standard service that every process serves beside the contract."""


def _services() -> Iterator[ServiceDescriptor]:
    names = {
        ".".join(path.relative_to(Path(root).parent).with_suffix("").parts)
        for root in ktrdr.__path__
        for path in Path(root).rglob("*_service_pb2.py")
    }
    for name in sorted(names):
        yield from import_module(name).DESCRIPTOR.services_by_name.values()


SERVICES: tuple[ServiceDescriptor, ...] = tuple(_services())
METHODS: tuple[MethodDescriptor, ...] = tuple(
    method for service in SERVICES for method in service.methods
)

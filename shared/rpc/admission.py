"""Admission: how many calls of each class may be in the server at once.

gRPC's own `maximum_concurrent_rpcs` is only the last fence: it rejects health
checks too, and carries no details. Classes keep one kind of call from taking
every thread: a flood of starts or open streams leaves reads and health alone.
Waits are bounded by the operations service, which answers early instead.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from shared.rpc.errors import ResourceExhaustedError
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor, rebuilt

START = "start"
READ = "read"
STREAM = "stream"
UNLIMITED = ""


class AdmissionInterceptor(MethodInterceptor):
    """Sheds calls beyond their class's limit with RESOURCE_EXHAUSTED and RetryInfo."""

    def __init__(self, classes: Mapping[str, str], limits: Mapping[str, int]) -> None:
        """`classes` by full method name or service prefix, `limits` by class.

        Raises ValueError for a method whose class has no limit.
        """
        super().__init__()
        for method, class_ in classes.items():
            if class_ not in {*limits, UNLIMITED}:
                raise ValueError(f"{method}: class {class_!r} has no limit; give it one")
        self._classes = dict(classes)
        self._limits = dict(limits)
        self._lock = threading.Lock()  # guards _inside
        self._inside: Counter[str] = Counter()

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Count the behaviour's calls in the class of its method."""
        class_ = self._class_of(method)
        if class_ == UNLIMITED:
            return handler
        counted = self._counted_stream if handler.response_streaming else self._counted
        return rebuilt(handler, lambda inner: counted(class_, inner))

    def _class_of(self, method: str) -> str:
        service = method.rsplit("/", 1)[0] + "/"
        return self._classes.get(method, self._classes.get(service, READ))

    def _counted(self, class_: str, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def counted(request: Any, context: grpc.ServicerContext) -> Any:
            self._enter(class_)
            try:
                return behaviour(request, context)
            finally:
                self._leave(class_)

        return counted

    def _counted_stream(self, class_: str, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def counted(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self._enter(class_)
            try:
                yield from behaviour(request, context)
            finally:
                self._leave(class_)

        return counted

    def _enter(self, class_: str) -> None:
        with self._lock:
            if self._inside[class_] >= self._limits[class_]:
                raise ResourceExhaustedError(
                    f"Too many {class_} calls at once (limit {self._limits[class_]}); "
                    "come back in a moment.",
                    reason="TOO_MANY_CALLS",
                    metadata={"class": class_, "limit": str(self._limits[class_])},
                )
            self._inside[class_] += 1

    def _leave(self, class_: str) -> None:
        with self._lock:
            self._inside[class_] -= 1

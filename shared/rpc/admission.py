"""Admission: how many calls of each class may be in the server at once.

gRPC's own `maximum_concurrent_rpcs` is only the last fence: it rejects health
checks too, and carries no details. Each class has threads of its own, so that
one kind of call never takes another's: a flood of starts, of open streams or of
waits leaves reads and health alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from shared.rpc.call_pool import CallPool, refusal
from shared.rpc.client_waits import ClientWaits
from shared.rpc.door import refusable
from shared.rpc.interceptors import Behaviour, Handler, MethodInterceptor, rebuilt

HEALTH = "health"
START = "start"
READ = "read"
STREAM = "stream"
WAIT = "wait"


class AdmissionInterceptor(MethodInterceptor):
    """Has each method served by the pool of its class; sheds the calls that the pool refuses.

    Those get RESOURCE_EXHAUSTED with RetryInfo; nothing is read of them.
    """

    def __init__(self, classes: Mapping[str, str], pools: Iterable[CallPool]) -> None:
        """`classes` by full method name or service prefix; the other methods are reads.

        Raises ValueError for a method whose class has no pool.
        """
        super().__init__()
        self._pools = {pool.class_: pool for pool in pools}
        for method, class_ in classes.items():
            if class_ not in self._pools:
                raise ValueError(f"{method}: class {class_!r} has no pool; give it one")
        self._classes = dict(classes)

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Name the pool to gRPC, and refuse the calls that the pool refuses."""
        pool = self._pool_of(method)
        return rebuilt(handler, lambda inner: _admitted(pool, inner))

    def waits_of(self, method: str) -> ClientWaits:
        """Where calls of a method are noted while they wait for their client."""
        return self._pool_of(method).waits

    def _pool_of(self, method: str) -> CallPool:
        service = method.rsplit("/", 1)[0] + "/"
        return self._pools[self._classes.get(method, self._classes.get(service, READ))]


def _admitted(pool: CallPool, behaviour: Behaviour) -> Behaviour:
    @functools.wraps(behaviour)
    def admitted(request: Any, context: grpc.ServicerContext, *rest: Any) -> Any:
        refused = refusal()
        if refused is not None:
            raise refused
        return behaviour(request, context, *rest)

    admitted.experimental_thread_pool = pool  # type: ignore[attr-defined]  # read by gRPC
    return refusable(admitted, lambda _: None)

"""An interceptor that remembers what has come through it."""

from __future__ import annotations

import functools
from typing import Any

from shared.rpc.door import refusable
from shared.rpc.interceptors import MethodInterceptor, rebuilt


class Around(MethodInterceptor):
    """Remembers how many calls have come through it, and which refusals it was told of."""

    def __init__(self, *, sees_all: bool) -> None:
        super().__init__()
        self._sees_all = sees_all
        self.entered = 0
        self.refused: list[str] = []

    def wrap(self, method: str, handler: Any) -> Any:
        return rebuilt(handler, self._around)

    def _around(self, behaviour: Any) -> Any:
        @functools.wraps(behaviour)
        def counted(*arguments: Any) -> Any:
            self.entered += 1
            return behaviour(*arguments)

        note = None if self._sees_all else lambda error: self.refused.append(error.reason)
        return refusable(counted, note)

"""The symbols that server reflection can describe."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool


class MethodAwarePool:
    """The default descriptor pool, which also finds the file of a method.

    Protobuf's own pool knows services but not their methods by name, so that
    describing `package.Service.Method` would find nothing.
    """

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802  # the pool's name
        """Return the file of a symbol, or of the service whose method it is."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            if method not in self._pool.FindServiceByName(service).methods_by_name:
                raise
            return self._pool.FindFileContainingSymbol(service)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the pool's."""
        return getattr(self._pool, name)

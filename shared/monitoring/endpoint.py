"""Where Prometheus reads what a process counts: a small HTTP server with one thread.

It sleeps until somebody connects and serves one caller after the other: no
thread per request, and none that looks whether it should end.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from socketserver import TCPServer
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

_PATIENCE = 2.0
"""Seconds one caller may keep the others waiting between two of its bytes."""
_JOIN = 3.0


class _Request(WSGIRequestHandler):
    """One request; those who take too long are hung up on, nothing is logged."""

    timeout = _PATIENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Log nothing."""

    def handle(self) -> None:
        """Serve the request; a caller that hangs up, or sends nothing, is no error."""
        with suppress(OSError):
            super().handle()


class _Server(WSGIServer):
    """A server that ends when it is told to, without looking now and then."""

    ending = False

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Request)

    def server_bind(self) -> None:
        """Take the port; the base would first look the machine's name up, which may take long."""
        TCPServer.server_bind(self)
        host, self.server_port = self.socket.getsockname()[:2]
        self.server_name = str(host)
        self.setup_environ()

    def serve(self) -> None:
        """Serve until told to end."""
        while not self.ending:
            self.handle_request()

    def end(self) -> None:
        """Have `serve` return."""
        self.ending = True
        own = self.server_name, self.server_port
        with suppress(OSError), socket.create_connection(own, _PATIENCE):
            pass  # who waits for somebody to connect notices


class MetricsEndpoint:
    """Serves a registry on a thread of its own from `start` to `close`, which joins it."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Takes the port, 0 for any; raises OSError if it cannot be had."""
        self._server = _Server(host, port)
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve, name="metrics", daemon=True)
        self.port = self._server.server_port

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def close(self) -> None:
        """End, once the caller who is being served has been."""
        self._server.end()
        self._thread.join(_JOIN)
        self._server.server_close()

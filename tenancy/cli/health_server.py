"""The HTTP server of the runner's health endpoints, beside its metrics or on a port of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tenancy.cli.errors import CommandError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from tenancy import Tenancy

__all__ = ["serve_health"]

_IDLE_SECONDS: Final = 10.0


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a thread for each request, so that a slow client keeps nothing waiting."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    """A handler that logs no requests, and closes silent connections."""

    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name in the base class)
        """Log nothing: a probe asks every few seconds."""


def serve_health(port: int, tenants: Tenancy, is_live: Callable[[], bool], with_metrics: bool) -> ExitStack:
    """Serve ``/live`` and ``/ready``, and if wanted ``/metrics``; return what ends it."""
    from tenancy.web.health import WSGIHealth  # noqa: PLC0415 (slow; loaded by the runner only)

    health, metrics = WSGIHealth(tenants, is_live=is_live), _metrics() if with_metrics else None

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if metrics is not None and environ.get("PATH_INFO") == "/metrics":
            return metrics(environ, start_response)
        return health(environ, start_response)

    try:
        server = make_server("", port, respond, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        msg = f"--health-port {port} cannot be used: {error.strerror or error}."
        remedy = "Choose another port, or stop the process that uses this one."
        raise CommandError(msg, remedy=remedy, code="failed") from error
    thread = threading.Thread(target=server.serve_forever, name="health-server", daemon=True)
    thread.start()
    end = ExitStack()
    end.callback(server.server_close)
    end.callback(thread.join)
    end.callback(server.shutdown)
    return end


def _metrics() -> WSGIApplication:
    try:
        from prometheus_client import make_wsgi_app  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = "--metrics-port needs prometheus-client, which is not installed."
        raise CommandError(msg, remedy="Install it: pip install 'eventsourcing-sqlalchemy[metrics]'") from error
    application: WSGIApplication = make_wsgi_app()
    return application

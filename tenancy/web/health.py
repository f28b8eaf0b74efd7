"""Health endpoints for orchestrators and load balancers, as applications for ASGI and WSGI.

A path that ends with ``/live`` is answered at once: the process serves requests. One that ends with ``/ready`` asks the
fleet's databases. A process must be restarted when it is not live, and gets no requests while it is not ready.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIEnvironment

from tenancy.arguments import check_type
from tenancy.errors import TenancyClosed
from tenancy.tenancy import Tenancy
from tenancy.web.responses import ErrorResponse

__all__ = ["LIVE", "READY", "ASGIHealth", "HealthEndpoints", "WSGIHealth"]

_Message = MutableMapping[str, Any]

LIVE: Final = "live"
READY: Final = "ready"
# Any client can send requests. They share an answer for so many seconds, and cost no more than one query of each
# database in this time.
_SHARED: Final = 1.0


class HealthEndpoints:
    """The responses of both endpoints. Safe to use from many threads.

    ``timeout`` is how many seconds the databases have to answer. ``is_live`` says whether the process works at all.
    """

    def __init__(self, tenants: Tenancy, *, timeout: float = 2.0, is_live: Callable[[], bool] = lambda: True) -> None:
        check_type("tenants", tenants, Tenancy, "the Tenancy of the fleet")
        check_type("timeout", timeout, (int, float), "a number of seconds")
        self._tenants = tenants
        self._timeout = timeout
        self._is_live = is_live
        self._last: tuple[float, ErrorResponse] | None = None

    def recall(self, path: str) -> ErrorResponse | None:
        """Return the response to a path, or None if the databases must be asked; never waits."""
        endpoint = path.rpartition("/")[2]
        if endpoint == LIVE:
            is_live = self._is_live()
            return _response(HTTPStatus.OK if is_live else HTTPStatus.SERVICE_UNAVAILABLE, {})
        if endpoint != READY:
            return _response(HTTPStatus.NOT_FOUND, {})
        last = self._last
        return last[1] if last is not None and time.monotonic() - last[0] < _SHARED else None

    async def respond_async(self, path: str) -> ErrorResponse:
        """Return the response to a path, and wait for the databases in a thread."""
        recalled = self.recall(path)
        return await asyncio.to_thread(self.respond, path) if recalled is None else recalled

    def respond(self, path: str) -> ErrorResponse:
        """Return the response to a path. Waits for the databases, for at most the timeout."""
        return self.recall(path) or self._ask()

    def _ask(self) -> ErrorResponse:
        try:
            databases = self._tenants.ping(self._timeout).databases
        except TenancyClosed:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, {})
        is_ready = self._is_live() and all(each.is_healthy for each in databases)
        checks = {each.name: "ok" if each.is_healthy else "failing" for each in databases}
        response = _response(HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE, {"databases": checks})
        self._last = time.monotonic(), response
        return response


def _response(status: HTTPStatus, details: dict[str, Any]) -> ErrorResponse:
    words = {HTTPStatus.OK: "ok", HTTPStatus.NOT_FOUND: "not found"}
    body = json.dumps({"status": words.get(status, "unavailable"), **details})
    headers = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store"}
    return ErrorResponse(body, status, headers)


class ASGIHealth:
    """The endpoints as an ASGI application: ``app.mount("/health", ASGIHealth(tenants))``."""

    def __init__(self, tenants: Tenancy, *, timeout: float = 2.0) -> None:
        self.endpoints = HealthEndpoints(tenants, timeout=timeout)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        answer = await self.endpoints.respond_async(scope["path"])
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body_for(scope.get("method"))})


class WSGIHealth:
    """The endpoints as a WSGI application."""

    def __init__(self, tenants: Tenancy, *, timeout: float = 2.0, is_live: Callable[[], bool] = lambda: True) -> None:
        self.endpoints = HealthEndpoints(tenants, timeout=timeout, is_live=is_live)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = self.endpoints.respond(environ.get("PATH_INFO", ""))
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers.items()))
        return [answer.body_for(environ.get("REQUEST_METHOD"))]

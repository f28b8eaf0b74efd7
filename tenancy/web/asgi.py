"""ASGI middleware: serve each request in the scope of its tenant. It needs no framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, Final

from tenancy.errors import TenancyError
from tenancy.instruments import instruments
from tenancy.tenancy import Tenancy
from tenancy.web.admission import AdmissionPolicy
from tenancy.web.resolvers import Request, Resolver
from tenancy.web.responses import LOOKUP_ERRORS, ErrorPages, ErrorResponse, is_refusal

__all__ = ["POLICY", "ASGIMiddleware", "request_of"]

POLICY: Final = "tenancy.policy"
"""The key of the scope under which the application finds the policy of the middleware."""

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_ASGIApplication = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

# Close codes from 4000 on are free for applications; the HTTP status is added to it.
_CLOSE: Final = 4000


class ASGIMiddleware:
    """Serve each HTTP request and each websocket of ``app`` in the scope of its tenant, on asyncio.

    ``resolver`` finds the tenant that a request names. ``public`` lists paths that are served without a tenant, and
    without asking the resolver or the registry: ``/health`` is that path, ``/static/*`` everything below. So does
    ``public_hosts`` for all paths of a host.

    ``errors`` are your own responses by error class: an HTML template, or a function that must not block.

    ``health='/health'`` serves ``/health/live`` and ``/health/ready``: see :mod:`tenancy.web.health`.

    A request gets 404 when it names no tenant or an unknown one, 403 when its tenant is unavailable, and 503 while the
    registry is unreachable. A websocket is refused before it is accepted, with an HTTP response if the server supports
    that; it is closed with 4403 when its tenant becomes unavailable later.
    """

    def __init__(
        self,
        app: _ASGIApplication,
        *,
        tenants: Tenancy,
        resolver: Resolver,
        public: Iterable[str] = (),
        public_hosts: Iterable[str] = (),
        errors: ErrorPages = MappingProxyType({}),
        health: str | None = None,
    ) -> None:
        self._app = app
        self._policy = AdmissionPolicy(
            tenants, resolver, public, public_hosts=public_hosts, errors=errors, health=health
        )

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = request_of(scope)
        response = _Response(scope, send, lambda error: self._policy.respond(error, request))
        if self._policy.is_about_health(request):
            await response.answer(await self._policy.health.respond_async(request.path))
            return
        try:
            admission = await self._policy.look_up_async(request)
            tenant_scope = self._policy.scope(admission.tenant)
        except LOOKUP_ERRORS as error:
            await response.refuse(error)
            return
        if instruments.tracer is not None:
            method = scope.get("method", "WEBSOCKET")
            tenant_scope = instruments.tracer.request(
                tenant_scope, admission.tenant, method, request.headers, lambda: response.status
            )
        with tenant_scope:
            try:
                inner = {**_mounted(scope, admission.mount), POLICY: self._policy}
                await self._app(inner, receive, response.send)
            except TenancyError as error:
                if not is_refusal(error):
                    raise
                await response.refuse(error)
            except ExceptionGroup as group:  # from a TaskGroup
                only, others = group.split(is_refusal)
                if only is None or others is not None:
                    raise
                await response.refuse(_first(only))


class _Response:
    """The response of an application, or the error response in its place."""

    def __init__(self, scope: _Scope, send: _Send, respond: Callable[[TenancyError], ErrorResponse]) -> None:
        self._scope = scope
        self._send = send
        self._respond = respond
        self._last_sent = ""
        self.status: int | None = None

    async def send(self, message: _Message) -> None:
        self._last_sent = message["type"]
        if self._last_sent == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, error: TenancyError) -> None:
        """Send the error response; raises ``error`` when the application's response has started."""
        await self.answer(self._respond(error), error)

    async def answer(self, refusal: ErrorResponse, error: TenancyError | None = None) -> None:
        """Send a response of the middleware; raises ``error`` when the application's response has started."""
        self.status = refusal.status
        is_websocket = self._scope["type"] == "websocket"
        kind = "websocket.http.response" if is_websocket else "http.response"
        if not self._last_sent and (not is_websocket or kind in (self._scope.get("extensions") or ())):
            headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
            await self._send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
            await self._send({"type": f"{kind}.body", "body": refusal.body_for(self._scope.get("method"))})
        elif is_websocket and self._last_sent in ("", "websocket.accept", "websocket.send"):
            await self._send({"type": "websocket.close", "code": _CLOSE + refusal.status, "reason": ""})
        elif error is not None:
            raise error


def _first(group: ExceptionGroup[Any]) -> TenancyError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def request_of(scope: Mapping[str, Any]) -> Request:
    """Return what resolvers and error handlers receive of an ASGI scope."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    path, root = scope["path"], _root(scope)
    is_below = bool(root) and path.startswith(root) and path[len(root) :][:1] in ("", "/")
    return Request(path=path[len(root) :] if is_below else path, headers=headers, raw=scope)


def _root(scope: Mapping[str, Any]) -> str:
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def _mounted(scope: _Scope, mount: str) -> _Scope:
    """Return a scope whose root path ends with ``mount``. The mount stays in the path, as ASGI requires."""
    if not mount:
        return scope
    root, path = _root(scope), scope["path"]
    if not path.startswith(root + mount):
        path = root + path  # some servers leave the root path out
    return {**scope, "root_path": root + mount, "path": path}

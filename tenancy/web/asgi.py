"""ASGI middleware: serve each request in the scope of its tenant. It needs no framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import replace
from typing import Any, Final

from tenancy.errors import TenancyError
from tenancy.instruments import instruments
from tenancy.model.tenant import Tenant
from tenancy.tenancy import Tenancy
from tenancy.web.admission import AdmissionPolicy
from tenancy.web.resolvers import Found, MustWait, Request, Resolver
from tenancy.web.responses import APPLICATION_ERRORS, LOOKUP_ERRORS, error_response

__all__ = ["ASGIMiddleware"]

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
    ) -> None:
        self._app = app
        self._policy = AdmissionPolicy(tenants, resolver, public, public_hosts)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        response = _Response(scope, send)
        try:
            request = _request(scope)
            found = await self._resolve(request)
            tenant = None if found is None else await self._find(found)
            tenant_scope = self._policy.scope(tenant)
        except LOOKUP_ERRORS as error:
            await response.refuse(error)
            return
        if instruments.tracer is not None:
            method = scope.get("method", "WEBSOCKET")
            tenant_scope = instruments.tracer.request(
                tenant_scope, tenant, method, request.headers, lambda: response.status
            )
        with tenant_scope:
            try:
                mount = found.mount if isinstance(found, Found) else ""
                await self._app(_mounted(scope, mount), receive, response.send)
            except APPLICATION_ERRORS as error:
                await response.refuse(error)
            except ExceptionGroup as group:  # from a TaskGroup
                only, others = group.split(APPLICATION_ERRORS)
                if only is None or others is not None:
                    raise
                await response.refuse(_first(only))

    async def _resolve(self, request: Request) -> Found | Tenant | None:
        try:
            return self._policy.resolve(replace(request, may_wait=False))
        except MustWait:
            return await asyncio.to_thread(self._policy.resolve, request)

    async def _find(self, found: Found | Tenant) -> Tenant:
        tenant = self._policy.recall(found)
        if tenant is not None:
            return tenant
        # In a thread, because this may query the registry, and the event loop must go on serving other requests.
        return await asyncio.to_thread(self._policy.find, found)


class _Response:
    """The response of an application, or the error response in its place."""

    def __init__(self, scope: _Scope, send: _Send) -> None:
        self._scope = scope
        self._send = send
        self._last_sent = ""
        self.status: int | None = None

    async def send(self, message: _Message) -> None:
        self._last_sent = message["type"]
        if self._last_sent == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, error: TenancyError) -> None:
        """Send the error response; raises ``error`` when the application's response has started."""
        refusal = error_response(error)
        self.status = refusal.status
        is_websocket = self._scope["type"] == "websocket"
        kind = "websocket.http.response" if is_websocket else "http.response"
        if not self._last_sent and (not is_websocket or kind in (self._scope.get("extensions") or ())):
            headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
            await self._send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
            await self._send({"type": f"{kind}.body", "body": refusal.body_for(self._scope.get("method"))})
        elif is_websocket and self._last_sent in ("", "websocket.accept", "websocket.send"):
            await self._send({"type": "websocket.close", "code": _CLOSE + refusal.status, "reason": ""})
        else:
            raise error


def _first(group: ExceptionGroup[TenancyError]) -> TenancyError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _request(scope: _Scope) -> Request:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    path, root = scope["path"], _root(scope)
    is_below = bool(root) and path.startswith(root) and path[len(root) :][:1] in ("", "/")
    return Request(path=path[len(root) :] if is_below else path, headers=headers, raw=scope)


def _root(scope: _Scope) -> str:
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

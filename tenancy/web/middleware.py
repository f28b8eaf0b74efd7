"""Each request in the scope of its tenant, for any framework: pure ASGI and pure WSGI.

A request for a public path is served without a tenant, whatever it names: neither the resolver nor the registry is
asked. Any other one is answered with 404 when it names no tenant or an unknown one, with 403 when its tenant does not
serve, and with 503 while the registry cannot be reached.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tenancy import context
from tenancy.arguments import check_list, check_type, invalid
from tenancy.errors import InvalidArgument, TenancyError, TenantNotFound
from tenancy.model.tenant import Tenant
from tenancy.tenancy import Tenancy
from tenancy.web.resolvers import Found, Request, Resolver
from tenancy.web.responses import APPLICATION_ERRORS, LOOKUP_ERRORS, ErrorResponse, error_response

__all__ = ["ASGIMiddleware", "WSGIMiddleware"]

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_ASGIApplication = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

# Applications choose codes of closing from 4000 on; the rest is the status of HTTP.
_CLOSE: Final = 4000


class AdmissionPolicy:
    """What both kinds of middleware know: which paths are public, and which tenant any other request names."""

    def __init__(self, tenants: Tenancy, resolver: Resolver, public: Iterable[str]) -> None:
        check_type("tenants", tenants, Tenancy, "the Tenancy of the fleet")
        if not callable(resolver):
            raise invalid("resolver", resolver, "a function, such as by_host('example.com')")
        check_list("public", public, "a list of paths: public=['/health']")
        self._public = frozenset(public)
        for path in self._public:
            check_type("A path in public", path, str, "a text such as '/health'")
            if not path.startswith("/"):
                msg = f"public: {path!r} is not a path."
                raise InvalidArgument(msg, remedy="Begin it with a slash.")
        self.tenants = tenants
        self._resolver = resolver
        self._public_below = tuple(path.removesuffix("*") for path in self._public if path.endswith("/*"))

    def named(self, request: Request) -> Found | None:
        """Return which tenant a request names, or None when it is for a public path; raises TenantNotFound."""
        # Before anything that can refuse: a health check does not depend on a tenant, nor on the registry.
        if self._is_public(request.path):
            return None
        found = self._resolver(request)
        if isinstance(found, str):
            return Found(found)
        if found is None:
            msg = "The request names no tenant."
            raise TenantNotFound(msg)
        if not isinstance(found, Found):
            msg = f"The resolver returned {type(found).__name__}."
            raise InvalidArgument(msg, remedy="Return a slug, a Found or None, and no awaitable.")
        return found

    def _is_public(self, path: str) -> bool:
        return path in self._public or path.startswith(self._public_below)

    def scope(self, tenant: Tenant | None) -> AbstractContextManager[None]:
        """Return the scope of a request; raises a TenantUnavailable."""
        return context.scope(self.tenants, None) if tenant is None else self.tenants.scope(tenant)


class ASGIMiddleware:
    """Serve each HTTP request and each websocket of ``app`` in the scope of its tenant, on asyncio.

    ``resolver`` says which tenant a request names. ``public`` lists the paths that are served without a tenant:
    ``/health`` is that path, ``/static/*`` everything below. A websocket is refused before it is accepted, with an HTTP
    answer where the server can do so; when its tenant ceases to serve, it is closed with 4403.
    """

    def __init__(
        self, app: _ASGIApplication, *, tenants: Tenancy, resolver: Resolver, public: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._tenants = tenants
        self._door = AdmissionPolicy(tenants, resolver, public)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            found = self._door.named(_request_of_asgi(scope))
            tenant = None if found is None else await self._find(found.slug)
            in_force = self._door.scope(tenant)
        except LOOKUP_ERRORS as error:
            await answer.refuse(error)
            return
        with in_force:
            try:
                await self._app(scope if found is None else _mounted(scope, found.mount), receive, answer.send)
            except APPLICATION_ERRORS as error:
                await answer.refuse(error)
            except ExceptionGroup as group:  # of a TaskGroup
                only, others = group.split(APPLICATION_ERRORS)
                if only is None or others is not None:
                    raise
                await answer.refuse(_first(only))

    async def _find(self, slug: str) -> Tenant:
        tenant = self._tenants.recall(slug)
        if tenant is not None:
            return tenant
        # The registry is asked in a thread, because the event loop serves all others meanwhile; a thread of asyncio,
        # because nothing has to be installed for it.
        return await asyncio.to_thread(self._tenants.__getitem__, slug)


class _Answer:
    """What an application has sent, and what can be sent in its place."""

    def __init__(self, scope: _Scope, send: _Send) -> None:
        self._scope = scope
        self._send = send
        self._last = ""

    async def send(self, message: _Message) -> None:
        self._last = message["type"]
        await self._send(message)

    async def refuse(self, error: TenancyError) -> None:
        """Answer with a refusal; raises ``error`` when another answer has begun."""
        refused = error_response(error)
        is_websocket = self._scope["type"] == "websocket"
        kind = "websocket.http.response" if is_websocket else "http.response"
        if not self._last and (not is_websocket or kind in (self._scope.get("extensions") or ())):
            headers = [(name.encode(), value.encode()) for name, value in refused.headers.items()]
            await self._send({"type": f"{kind}.start", "status": refused.status, "headers": headers})
            await self._send({"type": f"{kind}.body", "body": _body(refused, self._scope.get("method"))})
        elif is_websocket and self._last in ("", "websocket.accept", "websocket.send"):
            await self._send({"type": "websocket.close", "code": _CLOSE + refused.status, "reason": ""})
        else:
            raise error


def _first(group: ExceptionGroup[TenancyError]) -> TenancyError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _request_of_asgi(scope: _Scope) -> Request:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    path, root = scope["path"], _root(scope)
    is_below = bool(root) and path.startswith(root) and path[len(root) :][:1] in ("", "/")
    return Request(path=path[len(root) :] if is_below else path, headers=headers, raw=scope)


def _root(scope: _Scope) -> str:
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def _mounted(scope: _Scope, mount: str) -> _Scope:
    """Return a scope in which the beginning of the path is the application's root: it stays in the path, as ASGI
    wants it.
    """
    if not mount:
        return scope
    root, path = _root(scope), scope["path"]
    if not path.startswith(root + mount):
        path = root + path  # by a server that leaves the root out
    return {**scope, "root_path": root + mount, "path": path}


class WSGIMiddleware:
    """Serve each request of ``app`` in the scope of its tenant, and also what it sends later: its iterable is consumed
    and closed in the same scope.

    ``resolver`` and ``public`` are those of :class:`ASGIMiddleware`.
    """

    def __init__(
        self, app: WSGIApplication, *, tenants: Tenancy, resolver: Resolver, public: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._tenants = tenants
        self._door = AdmissionPolicy(tenants, resolver, public)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start = _Start(environ, start_response)
        try:
            found = self._door.named(_request_of_wsgi(environ))
            tenant = None if found is None else self._tenants[found.slug]
            in_force = self._door.scope(tenant)
        except LOOKUP_ERRORS as error:
            return [start.refuse(error)]
        try:
            with in_force:
                body = self._app(_moved(environ, found.mount) if found else environ, start)
        except APPLICATION_ERRORS as error:
            return [start.refuse(error)]
        if type(body) in (list, tuple):  # nothing runs while it is consumed
            return body
        tenant_id = None if tenant is None else tenant.id
        return _Body(body, lambda: context.scope(self._tenants, tenant_id), start.refuse)


class _Start:
    """The ``start_response`` of a request, and what can be answered in the place of what was started."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._method = environ.get("REQUEST_METHOD")
        self._start_response = start_response
        self._has_begun = False

    def __call__(self, *args: Any) -> Callable[[bytes], object]:
        self._has_begun = True
        return self._start_response(*args)

    def refuse(self, error: TenancyError) -> bytes:
        """Start a refusal and return its body; raises ``error`` when another answer has been sent."""
        refused = error_response(error)
        status = f"{refused.status} {HTTPStatus(refused.status).phrase}"
        # With the error, the server replaces what was begun, or raises it when that has been sent already.
        info = (sys.exc_info(),) if self._has_begun else ()
        self._start_response(status, list(refused.headers.items()), *info)
        return _body(refused, self._method)


class _Body:
    """An iterable of an application, of which each step is in the scope of the request, and nothing between them: a
    client may go away, and the thread of the server does something else then.
    """

    def __init__(
        self,
        body: Iterable[bytes],
        scope: Callable[[], AbstractContextManager[None]],
        refuse: Callable[[TenancyError], bytes],
    ) -> None:
        self._body = body
        self._scope = scope
        self._refuse = refuse
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._scope():
                if self._iterator is None:
                    self._iterator = iter(self._body)
                return next(self._iterator)
        except APPLICATION_ERRORS as error:
            self._iterator = iter(())
            return self._refuse(error)

    def close(self) -> None:
        """Close what the application returned, as the server has to at the end of every request."""
        with self._scope():
            close = getattr(self._body, "close", None)
            if close is not None:
                close()


def _request_of_wsgi(environ: WSGIEnvironment) -> Request:
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-").lower(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    return Request(path=_decoded(environ.get("PATH_INFO", "")), headers=headers, raw=environ)


def _moved(environ: WSGIEnvironment, mount: str) -> WSGIEnvironment:
    """Return an environ in which the beginning of the path has become a part of ``SCRIPT_NAME``."""
    if not mount:
        return environ
    path = _decoded(environ["PATH_INFO"]).removeprefix(mount)
    script = _decoded(environ.get("SCRIPT_NAME", "")) + mount
    return {**environ, "SCRIPT_NAME": _encoded(script), "PATH_INFO": _encoded(path)}


def _decoded(path: str) -> str:
    # The bytes of the path, one to a character; what is no UTF-8 has to come back as it was.
    return path.encode("latin-1").decode(errors="surrogateescape")


def _encoded(path: str) -> str:
    return path.encode(errors="surrogateescape").decode("latin-1")


def _body(refused: ErrorResponse, method: Any) -> bytes:
    return b"" if method == "HEAD" else refused.body.encode()

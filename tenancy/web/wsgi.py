"""WSGI middleware: serve each request in the scope of its tenant. It needs no framework."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tenancy import context
from tenancy.errors import TenancyError
from tenancy.instruments import instruments
from tenancy.tenancy import Tenancy
from tenancy.web.admission import AdmissionPolicy
from tenancy.web.resolvers import Request, Resolver
from tenancy.web.responses import LOOKUP_ERRORS, ErrorPages, ErrorResponse, is_refusal

__all__ = ["WSGIMiddleware", "request_of"]


class WSGIMiddleware:
    """Serve each request of ``app`` in the scope of its tenant. The response iterable is consumed and closed in the
    same scope.

    ``resolver``, ``public``, ``public_hosts``, ``errors``, ``health`` and the error responses are those of
    :class:`~tenancy.web.asgi.ASGIMiddleware`.
    """

    def __init__(
        self,
        app: WSGIApplication,
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

    def error_response(self, error: TenancyError, environ: WSGIEnvironment) -> ErrorResponse:
        """Return the response to an error that a framework has caught; raises any other ``error``."""
        if not is_refusal(error):
            raise error
        return self._policy.respond(error, request_of(environ))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = request_of(environ)
        start = _Start(environ, start_response, lambda error: self._policy.respond(error, request))
        if self._policy.is_about_health(request):
            return [start.answer(self._policy.health.respond(request.path))]
        try:
            tenant, mount = self._policy.look_up(request)
            tenant_scope = self._policy.scope(tenant)
        except LOOKUP_ERRORS as error:
            return [start.refuse(error)]
        if instruments.tracer is not None:
            method = environ["REQUEST_METHOD"]
            tenant_scope = instruments.tracer.request(
                tenant_scope, tenant, method, request.headers, lambda: start.status
            )
        with tenant_scope:
            try:
                body = self._app(_mounted(environ, mount), start)
            except TenancyError as error:
                if not is_refusal(error):
                    raise
                return [start.refuse(error)]
        if type(body) in (list, tuple):  # consuming it runs no code of the application
            return body
        tenant_id = None if tenant is None else tenant.id
        return _Body(body, lambda: context.scope(self._policy.tenants, tenant_id), start.refuse)


class _Start:
    """The ``start_response`` of a request, which can replace a started response by an error response."""

    def __init__(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        respond: Callable[[TenancyError], ErrorResponse],
    ) -> None:
        self._respond = respond
        self._method = environ.get("REQUEST_METHOD")
        self._start_response = start_response
        self._has_started = False
        self._status = ""

    @property
    def status(self) -> int | None:
        """The status of the response, or None before its start."""
        number = self._status[:3]
        return int(number) if number.isdecimal() else None

    def __call__(self, *args: Any) -> Callable[[bytes], object]:
        self._has_started = True
        self._status = args[0]
        return self._start_response(*args)

    def refuse(self, error: TenancyError) -> bytes:
        """Start the error response and return its body; raises ``error`` when the headers have been sent."""
        return self.answer(self._respond(error))

    def answer(self, refusal: ErrorResponse) -> bytes:
        """Start a response of the middleware and return its body."""
        status = self._status = f"{refusal.status} {HTTPStatus(refusal.status).phrase}"
        # Given the error, the server replaces the headers, or raises it when they have been sent.
        info = (sys.exc_info(),) if self._has_started else ()
        self._start_response(status, list(refusal.headers.items()), *info)
        return refusal.body_for(self._method)


class _Body:
    """A response iterable that enters the request's scope for each step.

    The scope is left between steps: a client may disconnect, and the server then uses the thread for other requests.
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
        except TenancyError as error:
            if not is_refusal(error):
                raise
            self._iterator = iter(())
            return self._refuse(error)

    def close(self) -> None:
        """Close the application's iterable; the server calls this at the end of every request."""
        with self._scope():
            close = getattr(self._body, "close", None)
            if close is not None:
                close()


def request_of(environ: WSGIEnvironment) -> Request:
    """Return what resolvers and error handlers receive of a WSGI environ."""
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-").lower(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    return Request(path=_decoded(environ.get("PATH_INFO", "")), headers=headers, raw=environ)


def _mounted(environ: WSGIEnvironment, mount: str) -> WSGIEnvironment:
    """Return an environ with ``mount`` moved from ``PATH_INFO`` to ``SCRIPT_NAME``."""
    if not mount:
        return environ
    path = _decoded(environ["PATH_INFO"]).removeprefix(mount)
    script = _decoded(environ.get("SCRIPT_NAME", "")) + mount
    return {**environ, "SCRIPT_NAME": _encoded(script), "PATH_INFO": _encoded(path)}


def _decoded(path: str) -> str:
    # WSGI strings hold one byte per character; bytes that are not UTF-8 must survive the round trip.
    return path.encode("latin-1").decode(errors="surrogateescape")


def _encoded(path: str) -> str:
    return path.encode(errors="surrogateescape").decode("latin-1")

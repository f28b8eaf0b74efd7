"""Flask: middleware and error handlers in one call."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from flask import Flask, request

from tenancy.errors import TenancyError
from tenancy.tenancy import Tenancy
from tenancy.web.resolvers import Resolver
from tenancy.web.responses import ErrorPages, ErrorResponse
from tenancy.web.wsgi import WSGIMiddleware

__all__ = ["install"]


def install(
    app: Flask,
    *,
    tenants: Tenancy,
    resolver: Resolver,
    public: Iterable[str] = (),
    public_hosts: Iterable[str] = (),
    errors: ErrorPages = MappingProxyType({}),
    health: str | None = None,
) -> None:
    """Serve each request of an application in the scope of its tenant.

    The arguments are those of :class:`~tenancy.web.wsgi.WSGIMiddleware`. Views that raise errors of tenants get the
    same responses, which Flask would turn into 500.
    """
    middleware = WSGIMiddleware(
        app.wsgi_app,
        tenants=tenants,
        resolver=resolver,
        public=public,
        public_hosts=public_hosts,
        errors=errors,
        health=health,
    )

    def respond(error: TenancyError) -> ErrorResponse:
        return middleware.error_response(error, request.environ)

    app.wsgi_app = middleware  # type: ignore[method-assign]
    app.register_error_handler(TenancyError, respond)

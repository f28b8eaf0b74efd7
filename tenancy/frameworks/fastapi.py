"""FastAPI: middleware and error handlers in one call, and dependencies with types."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, cast

from eventsourcing.application import Application
from fastapi import Depends, FastAPI, Response
from starlette.requests import HTTPConnection, Request

from tenancy.arguments import check_class
from tenancy.errors import NoCurrentTenant, TenancyError
from tenancy.model.tenant import Tenant
from tenancy.tenancy import Tenancy
from tenancy.web.admission import AdmissionPolicy
from tenancy.web.asgi import POLICY, ASGIMiddleware, request_of
from tenancy.web.resolvers import Resolver
from tenancy.web.responses import ErrorPages, is_refusal

__all__ = ["CurrentTenant", "TenantApplication", "install"]

_TApplication = TypeVar("_TApplication", bound=Application[Any])


def install(
    app: FastAPI,
    *,
    tenants: Tenancy,
    resolver: Resolver,
    public: Iterable[str] = (),
    public_hosts: Iterable[str] = (),
    errors: ErrorPages = MappingProxyType({}),
    health: str | None = None,
) -> None:
    """Serve each request and websocket of an application in the scope of its tenant.

    The arguments are those of :class:`~tenancy.web.asgi.ASGIMiddleware`. Errors of endpoints are answered inside of all
    middleware, so their responses get the headers that middleware adds, in whichever order it was added.
    """
    app.add_middleware(
        ASGIMiddleware,
        tenants=tenants,
        resolver=resolver,
        public=public,
        public_hosts=public_hosts,
        errors=errors,
        health=health,
    )
    app.add_exception_handler(TenancyError, _respond)


def _respond(connection: HTTPConnection, error: Exception) -> Response:
    # A websocket is closed by the middleware.
    if not isinstance(connection, Request) or not is_refusal(error) or POLICY not in connection.scope:
        raise error
    answer = _policy(connection).respond(cast("TenancyError", error), request_of(connection.scope))
    return Response(answer.body_for(connection.method), answer.status, dict(answer.headers))


def _policy(connection: HTTPConnection) -> AdmissionPolicy:
    policy: AdmissionPolicy | None = connection.scope.get(POLICY)
    if policy is None:
        msg = "The application does not resolve requests to tenants."
        raise NoCurrentTenant(msg, remedy="Call tenancy.frameworks.fastapi.install(app, ...).")
    return policy


# These functions are not async: FastAPI calls them in threads, because they may query a database.


def _current_tenant(connection: HTTPConnection) -> Tenant:
    return _policy(connection).tenants.current


CurrentTenant: TypeAlias = Annotated[Tenant, Depends(_current_tenant)]
"""The type of a parameter that gets the tenant of the request. A public path has none: raises NoCurrentTenant."""

if TYPE_CHECKING:
    TenantApplication: TypeAlias = Annotated[_TApplication, Depends]
else:

    class TenantApplication:
        """``TenantApplication[Kennels]`` is the type of a parameter that gets that application of the tenant."""

        def __class_getitem__(cls, application: type[Application[Any]]) -> Any:
            check_class("The application", application, Application, "its class: TenantApplication[Kennels]")
            return _application_type(application)


@cache
def _application_type(cls: type[Application[Any]]) -> Any:
    # One function for each class: FastAPI calls it once for a request, however many parameters need it.
    def application(connection: HTTPConnection) -> Application[Any]:
        return _policy(connection).tenants.application(cls)

    return Annotated[cls, Depends(application)]

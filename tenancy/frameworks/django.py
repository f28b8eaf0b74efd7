"""Django: one middleware for WSGI and ASGI, sync and async views, and the test client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import MappingProxyType
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import get_script_prefix, set_script_prefix

from tenancy import context
from tenancy.errors import TenancyError
from tenancy.model.tenant import Tenant
from tenancy.tenancy import Tenancy
from tenancy.web.admission import Admission, AdmissionPolicy
from tenancy.web.resolvers import Request, Resolver
from tenancy.web.responses import LOOKUP_ERRORS, ErrorPages, ErrorResponse, is_refusal

__all__ = ["tenant_middleware"]

_GetResponse = Callable[[HttpRequest], Any]


def tenant_middleware(
    *,
    tenants: Tenancy,
    resolver: Resolver,
    public: Iterable[str] = (),
    public_hosts: Iterable[str] = (),
    errors: ErrorPages = MappingProxyType({}),
    health: str | None = None,
) -> Callable[[_GetResponse], Any]:
    """Return a middleware to name first in ``MIDDLEWARE``: it serves each request in the scope of its tenant.

    The arguments are those of :class:`~tenancy.web.asgi.ASGIMiddleware`. ``request.tenant`` is the tenant, or None for
    a public request. Errors of views get the responses that the middleware gives, which Django would turn into 500.
    """
    policy = AdmissionPolicy(tenants, resolver, public, public_hosts=public_hosts, errors=errors, health=health)

    def middleware(get_response: _GetResponse) -> _Middleware:
        return _Middleware(get_response, policy)

    # How Django learns that it need not wrap the middleware for either kind of handler.
    for name in ("sync_capable", "async_capable"):
        setattr(middleware, name, True)
    return middleware


class _Middleware:
    """The middleware of one handler, which is sync or async."""

    def __init__(self, get_response: _GetResponse, policy: AdmissionPolicy) -> None:
        self._get_response = get_response
        self._policy = policy
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        if self._is_async:
            return self._call_async(request)
        if self._policy.is_about_health(_request_of(request)):
            return _response(request, self._policy.health.respond(request.path_info))
        try:
            admission = self._policy.look_up(_request_of(request))
            scope = self._policy.scope(admission.tenant)
        except LOOKUP_ERRORS as error:
            return self._refused(request, error)
        with scope, _mounted(request, admission):
            return self._scoped(self._get_response(request), admission.tenant)

    async def _call_async(self, request: HttpRequest) -> HttpResponse:
        if self._policy.is_about_health(_request_of(request)):
            return _response(request, await self._policy.health.respond_async(request.path_info))
        try:
            admission = await self._policy.look_up_async(_request_of(request))
            scope = self._policy.scope(admission.tenant)
        except LOOKUP_ERRORS as error:
            return self._refused(request, error)
        with scope, _mounted(request, admission):
            return self._scoped(await self._get_response(request), admission.tenant)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer the errors of views that are about a tenant. Django calls this."""
        return self._refused(request, error) if isinstance(error, TenancyError) and is_refusal(error) else None

    def _refused(self, request: HttpRequest, error: TenancyError) -> HttpResponse:
        return _response(request, self._policy.respond(error, _request_of(request)))

    def _scoped(self, response: HttpResponse, tenant: Tenant | None) -> HttpResponse:
        # A server consumes a stream when the middleware has returned. Files contain no code of the application.
        if isinstance(response, StreamingHttpResponse) and getattr(response, "file_to_stream", None) is None:
            tenant_id = None if tenant is None else tenant.id
            kind = _AsyncStream if response.is_async else _Stream
            response.streaming_content = kind(
                response.streaming_content, lambda: context.scope(self._policy.tenants, tenant_id)
            )
        return response


def _response(request: HttpRequest, answer: ErrorResponse) -> HttpResponse:
    return HttpResponse(answer.body_for(request.method), status=answer.status, headers=dict(answer.headers))


def _request_of(request: HttpRequest) -> Request:
    headers = [(name.lower(), value) for name, value in request.headers.items()]
    return Request(path=request.path_info, headers=headers, raw=getattr(request, "scope", request.META))


def _mounted(request: HttpRequest, admission: Admission) -> ExitStack:
    """Hide the part of the path that names the tenant from URL patterns, and prepend it to reversed URLs."""
    request.tenant = admission.tenant
    undo = ExitStack()
    if admission.mount:
        prefix = get_script_prefix()
        undo.callback(set_script_prefix, prefix)
        set_script_prefix(f"{prefix.rstrip('/')}{admission.mount}/")
        request.META["SCRIPT_NAME"] = f"{request.META.get('SCRIPT_NAME', '').rstrip('/')}{admission.mount}"
        request.path_info = request.path_info.removeprefix(admission.mount) or "/"
    return undo


class _Stream:
    """A stream that enters the scope of its request for each step, and leaves it in between."""

    def __init__(self, content: Iterable[bytes], scope: Callable[[], AbstractContextManager[None]]) -> None:
        self._content = iter(content)
        self._scope = scope

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._scope():
            return next(self._content)


class _AsyncStream:
    """The same for an asynchronous stream."""

    def __init__(self, content: AsyncIterator[bytes], scope: Callable[[], AbstractContextManager[None]]) -> None:
        self._content = aiter(content)
        self._scope = scope

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with self._scope():
            return await anext(self._content)

"""Decide which requests are served, and for which tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from types import NoneType
from typing import NamedTuple

from tenancy import context
from tenancy.arguments import check_list, check_type, invalid
from tenancy.errors import InvalidArgument, TenantNotFound
from tenancy.model.domains import bare_host, normalize_domain
from tenancy.model.tenant import Tenant
from tenancy.registry.lookup import not_found
from tenancy.tenancy import Tenancy
from tenancy.web.health import LIVE, READY, HealthEndpoints
from tenancy.web.resolvers import Found, MustWait, Request, Resolver
from tenancy.web.responses import ErrorPages, Responder

__all__ = ["Admission", "AdmissionPolicy"]


class Admission(NamedTuple):
    """The tenant of a request, or None for a public one, and the leading part of the path that names the tenant."""

    tenant: Tenant | None
    mount: str = ""


class AdmissionPolicy:
    """The public paths and hosts, and the resolver, as every kind of middleware applies them."""

    def __init__(
        self,
        tenants: Tenancy,
        resolver: Resolver,
        public: Iterable[str],
        *,
        public_hosts: Iterable[str],
        errors: ErrorPages,
        health: str | None,
    ) -> None:
        check_type("tenants", tenants, Tenancy, "the Tenancy of the fleet")
        if not callable(resolver):
            raise invalid("resolver", resolver, "a function, such as by_host('example.com')")
        check_list("public", public, "a list of paths: public=['/health']")
        self._public = frozenset(public)
        for path in self._public:
            check_type("A path in public", path, str, "a string such as '/health'")
            if not path.startswith("/"):
                msg = f"public: {path!r} is not a path."
                raise InvalidArgument(msg, remedy="Start it with a slash.")
        check_list("public_hosts", public_hosts, "a list of host names: public_hosts=['app.example.com']")
        self._public_hosts = frozenset(map(_public_host, public_hosts))
        check_type("health", health, (str, NoneType), "a path: health='/health'")
        if health is not None and (not health.startswith("/") or health.endswith("/")):
            msg = f"health: {health!r} is not a path."
            raise InvalidArgument(msg, remedy="Start it with a slash, and end it without one: health='/health'")
        self._health = frozenset() if health is None else frozenset({f"{health}/{LIVE}", f"{health}/{READY}"})
        self.health = HealthEndpoints(tenants)
        self.tenants = tenants
        self.respond = Responder(errors).respond
        self._resolver = resolver
        self._public_prefixes = tuple(path.removesuffix("*") for path in self._public if path.endswith("/*"))

    def is_about_health(self, request: Request) -> bool:
        """Return whether a request is for one of the health endpoints."""
        return request.path in self._health

    def look_up(self, request: Request) -> Admission:
        """Return the tenant of a request; raises one of LOOKUP_ERRORS. May query the registry."""
        found = self._resolve(request)
        return _admission(found, None if found is None else self._find(found))

    async def look_up_async(self, request: Request) -> Admission:
        """Return the tenant of a request as :meth:`look_up` does, without blocking the event loop."""
        try:
            found = self._resolve(replace(request, may_wait=False))
        except MustWait:
            return await asyncio.to_thread(self.look_up, request)
        tenant = None if found is None else self._recall(found)
        if found is not None and tenant is None:
            # In a thread, because this may query the registry.
            tenant = await asyncio.to_thread(self._find, found)
        return _admission(found, tenant)

    def _resolve(self, request: Request) -> Found | Tenant | None:
        # Public paths come first: a health check must not depend on a tenant or on the registry.
        if self._is_public(request):
            return None
        found = self._resolver(replace(request, tenants=self.tenants))
        if isinstance(found, str):
            return Found(found)
        if found is None:
            msg = "The request names no tenant."
            raise TenantNotFound(msg)
        if not isinstance(found, (Found, Tenant)):
            msg = f"The resolver returned {type(found).__name__}."
            raise InvalidArgument(msg, remedy="Return a slug, a Found, a Tenant or None; a resolver cannot be async.")
        return found

    def _recall(self, found: Found | Tenant) -> Tenant | None:
        """Return the tenant from memory, or None if the registry must be queried; never waits."""
        if isinstance(found, Found):
            return self.tenants.recall(found.slug)
        is_known, tenant = self.tenants.fleet.registry_cache.recall_id(found.id)
        if is_known and tenant is None:
            raise not_found(found.slug)
        return tenant

    def _find(self, found: Found | Tenant) -> Tenant:
        if isinstance(found, Found):
            return self.tenants[found.slug]
        # Its current state: a resolver may have kept the object for long.
        tenant = self.tenants.fleet.registry_cache.get(found.id)
        if tenant is None:
            raise not_found(found.slug)
        return tenant

    def _is_public(self, request: Request) -> bool:
        if request.path in self._public or request.path.startswith(self._public_prefixes):
            return True
        hosts = request.values("host") if self._public_hosts else ()
        return len(hosts) == 1 and bare_host(hosts[0]) in self._public_hosts

    def scope(self, tenant: Tenant | None) -> AbstractContextManager[None]:
        """Return the scope of a request; raises a TenantUnavailable. Never waits: the tenant was just looked up."""
        if tenant is not None:
            self.tenants.fleet.check_serves(tenant)
        return context.scope(self.tenants, None if tenant is None else tenant.id)


def _admission(found: Found | Tenant | None, tenant: Tenant | None) -> Admission:
    return Admission(tenant, found.mount if isinstance(found, Found) else "")


def _public_host(host: str) -> str:
    check_type("A host in public_hosts", host, str, "a string such as 'app.example.com'")
    name = bare_host(host)
    if name.isascii() and name and not set(name) & {"/", "*", " "}:
        return name  # also a single label, or an IP address
    return normalize_domain(host)

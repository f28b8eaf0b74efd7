"""Decide which requests are served, and for which tenant."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

from tenancy import context
from tenancy.arguments import check_list, check_type, invalid
from tenancy.errors import InvalidArgument, TenantNotFound
from tenancy.model.domains import bare_host, normalize_domain
from tenancy.model.tenant import Tenant
from tenancy.registry.lookup import not_found
from tenancy.tenancy import Tenancy
from tenancy.web.resolvers import Found, Request, Resolver

__all__ = ["AdmissionPolicy"]


class AdmissionPolicy:
    """The public paths and hosts, and the resolver, as every kind of middleware applies them."""

    def __init__(
        self, tenants: Tenancy, resolver: Resolver, public: Iterable[str], public_hosts: Iterable[str]
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
        self._tenants = tenants
        self._resolver = resolver
        self._public_prefixes = tuple(path.removesuffix("*") for path in self._public if path.endswith("/*"))

    def resolve(self, request: Request) -> Found | Tenant | None:
        """Return the tenant that a request names, or None for a public path or host; raises TenantNotFound.

        Raises MustWait unless the request may wait.
        """
        # Public paths come first: a health check must not depend on a tenant or on the registry.
        if self._is_public(request):
            return None
        found = self._resolver(replace(request, tenants=self._tenants))
        if isinstance(found, str):
            return Found(found)
        if found is None:
            msg = "The request names no tenant."
            raise TenantNotFound(msg)
        if not isinstance(found, (Found, Tenant)):
            msg = f"The resolver returned {type(found).__name__}."
            raise InvalidArgument(msg, remedy="Return a slug, a Found, a Tenant or None; a resolver cannot be async.")
        return found

    def recall(self, found: Found | Tenant) -> Tenant | None:
        """Return the tenant that a resolver has found, or None if the registry must be queried; never waits.

        Raises TenantNotFound, if that is known.
        """
        if isinstance(found, Found):
            return self._tenants.recall(found.slug)
        # A resolver may have kept a Tenant for long.
        is_known, tenant = self._tenants.fleet.registry_cache.recall_id(found.id)
        if is_known and tenant is None:
            raise not_found(found.slug)
        return tenant

    def find(self, found: Found | Tenant) -> Tenant:
        """Return the tenant that a resolver has found; raises TenantNotFound."""
        if isinstance(found, Found):
            return self._tenants[found.slug]
        tenant = self._tenants.fleet.registry_cache.get(found.id)
        if tenant is None:
            raise not_found(found.slug)
        return tenant

    def _is_public(self, request: Request) -> bool:
        if request.path in self._public or request.path.startswith(self._public_prefixes):
            return True
        hosts = request.values("host") if self._public_hosts else ()
        return len(hosts) == 1 and bare_host(hosts[0]) in self._public_hosts

    def scope(self, tenant: Tenant | None) -> AbstractContextManager[None]:
        """Return the scope of a request; raises a TenantUnavailable."""
        return context.scope(self._tenants, None) if tenant is None else self._tenants.scope(tenant)


def _public_host(host: str) -> str:
    check_type("A host in public_hosts", host, str, "a string such as 'app.example.com'")
    name = bare_host(host)
    if name.isascii() and name and not set(name) & {"/", "*", " "}:
        return name  # also a single label, or an IP address
    return normalize_domain(host)

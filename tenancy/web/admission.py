"""Decide which requests are served, and for which tenant."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from tenancy import context
from tenancy.arguments import check_list, check_type, invalid
from tenancy.errors import InvalidArgument, TenantNotFound
from tenancy.model.tenant import Tenant
from tenancy.tenancy import Tenancy
from tenancy.web.resolvers import Found, Request, Resolver

__all__ = ["AdmissionPolicy"]


class AdmissionPolicy:
    """The public paths and the resolver, as both kinds of middleware apply them."""

    def __init__(self, tenants: Tenancy, resolver: Resolver, public: Iterable[str]) -> None:
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
        self._tenants = tenants
        self._resolver = resolver
        self._public_prefixes = tuple(path.removesuffix("*") for path in self._public if path.endswith("/*"))

    def resolve(self, request: Request) -> Found | None:
        """Return the tenant that a request names, or None for a public path; raises TenantNotFound."""
        # Public paths come first: a health check must not depend on a tenant or on the registry.
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
            raise InvalidArgument(msg, remedy="Return a slug, a Found or None; a resolver cannot be async.")
        return found

    def _is_public(self, path: str) -> bool:
        return path in self._public or path.startswith(self._public_prefixes)

    def scope(self, tenant: Tenant | None) -> AbstractContextManager[None]:
        """Return the scope of a request; raises a TenantUnavailable."""
        return context.scope(self._tenants, None) if tenant is None else self._tenants.scope(tenant)

"""Find one tenant by its slug, and lock it for a change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from tenancy.arguments import check_type
from tenancy.errors import InvalidSlug, TenantNotFound
from tenancy.model.slugs import normalize
from tenancy.model.tenant import Tenant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.registry.registry import Registry

__all__ = ["find_tenant", "known_slug", "not_found", "one_tenant"]


class _Finder(Protocol):
    """The registry, or its cache."""

    def find(self, slug: str) -> Tenant | None:
        """Return the tenant with a normalized slug, or None."""


def find_tenant(registry: _Finder, slug: str) -> Tenant:
    """Return the tenant with a slug, whatever its status; raises TenantNotFound."""
    tenant = registry.find(known_slug(slug))
    if tenant is None:
        raise not_found(slug)
    return tenant


@contextmanager
def one_tenant(registry: Registry, wanted: str | Tenant) -> Iterator[tuple[Session, Tenant]]:
    """Yield a session and a tenant's current state, in a transaction that locks the tenant; raises TenantNotFound."""
    if not isinstance(wanted, str):
        check_type("The tenant", wanted, Tenant, "its slug or a Tenant")
    with registry.locked(known_slug(wanted) if isinstance(wanted, str) else wanted.id) as (session, tenants):
        if not tenants:
            raise not_found(wanted if isinstance(wanted, str) else wanted.slug)
        yield session, tenants[0]


def known_slug(slug: str) -> str:
    """Return the normalized slug; raises TenantNotFound for an invalid one, which no tenant can have."""
    try:
        return normalize(slug)  # by the widest rule: a tenant may be older than the current rule
    except InvalidSlug as error:
        raise not_found(slug) from error


def not_found(slug: str) -> TenantNotFound:
    """Return the error to raise for a slug that no tenant has."""
    return TenantNotFound(f"There is no tenant {slug!r}.", tenant=slug)

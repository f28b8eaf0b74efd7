"""Find one tenant by its slug, and lock it for a change; check the slug of a new one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from tenancy.arguments import check_type
from tenancy.errors import InvalidSlug, RegistryMissing, TenantNotFound
from tenancy.model.slugs import check_reserved, normalize
from tenancy.model.tenant import Tenant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.registry.registry import Registry
    from tenancy.settings import TenancySettings

__all__ = ["find_tenant", "known_slug", "new_slug", "not_found", "one_tenant"]


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


def new_slug(registry: Registry, settings: TenancySettings, slug: str) -> str:
    """Return the normalized slug of a tenant to create; raises InvalidSlug, also for a reserved one.

    A tenant that had a reserved slug before it was reserved keeps it, and is found by ``create`` with ``exist_ok``.
    """
    normal = normalize(slug, settings.slugs)
    if normal in settings.reserved_slugs:
        found = None
        with suppress(RegistryMissing):  # created with the first tenant
            found = registry.find(normal)
        if found is None:
            check_reserved(normal, settings.reserved_slugs)
    return normal


def not_found(slug: str) -> TenantNotFound:
    """Return the error to raise for a slug that no tenant has."""
    return TenantNotFound(f"There is no tenant {slug!r}.", tenant=slug)

"""Choose the tenants of an operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tenancy.errors import InvalidArgument
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.registry.lookup import known_slug, not_found
from tenancy.registry.queries import TenantQuery, find_tenants

if TYPE_CHECKING:
    from tenancy.registry import Registry

__all__ = ["TenantSelection"]

# Tenants without tables, or with tables that are being removed.
_NEVER: Final = (TenantStatus.PROVISIONING, TenantStatus.PURGING)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSelection:
    """Which tenants an operation is about; all conditions must hold. By default all that have tables.

    Raises InvalidArgument for a status that tenants of an operation cannot have.
    """

    slugs: Sequence[str] = ()
    """Slugs or ids; empty for all tenants."""
    status: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    """Keys and values of the tenants' metadata. A text stands for this text, or for the value whose JSON it is."""
    limit: int | None = None
    """The maximum number of tenants that need work."""
    exclude: Sequence[str] = ()
    """Slugs or ids."""

    def __post_init__(self) -> None:
        allowed = [status for status in TenantStatus if status not in _NEVER]
        if self.status is not None and self.status not in allowed:
            msg = f"Tenants of status {self.status!r} cannot be selected."
            raise InvalidArgument(msg, remedy=f"Choose one of: {', '.join(allowed)}.")

    def tenants(self, registry: Registry) -> Sequence[Tenant]:
        """Return the selected tenants in slug order, with few queries; raises TenantNotFound for an unknown slug."""
        query = TenantQuery(status=self.status, where=self.where)
        found: Iterable[Tenant] = _find(registry, self.slugs) if self.slugs else find_tenants(registry, query)
        excluded = {tenant.id for tenant in _find(registry, self.exclude)}
        return [
            tenant
            for tenant in found
            if tenant.id not in excluded and tenant.status not in _NEVER and query.accepts(tenant)
        ]


def _find(registry: Registry, slugs: Sequence[str]) -> Sequence[Tenant]:
    """Return tenants by slug or id, each once, in slug order. A slug takes precedence over an equal id."""
    by_slug = registry.find_many([known_slug(slug) for slug in slugs])
    ids = {slug: tenant_id for slug in slugs if (tenant_id := _id_of(slug)) is not None}
    by_id = registry.get_many(list(ids.values())) if ids else {}
    found: dict[UUID, Tenant] = {}
    for slug in slugs:
        tenant = by_slug.get(known_slug(slug)) or (by_id.get(ids[slug]) if slug in ids else None)
        if tenant is None:
            raise not_found(slug)
        found[tenant.id] = tenant
    return sorted(found.values(), key=lambda tenant: tenant.slug)


def _id_of(slug: str) -> UUID | None:
    try:
        return UUID(slug)
    except ValueError:
        return None

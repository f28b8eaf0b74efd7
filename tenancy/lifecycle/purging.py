"""Purge tenants in idempotent steps, and verify that nothing is left.

First the status is set, and every process gets the time to see that the tenant is offline, unless it has had that time
before. Then the tables are dropped in batches, and the database's catalog is checked for anything left. Last, the
tenant's registry rows are erased. The process may die at any step: the tenant keeps the status ``purging``, and
``purge`` or ``tenancy doctor --repair`` finishes the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from tenancy.arguments import check_list, check_type
from tenancy.errors import TenancyError, TransitionRefused
from tenancy.lifecycle.transitions import next_status
from tenancy.model.tenant import Action, Tenant, TenantStatus, check_actor
from tenancy.registry import Registry
from tenancy.registry.cache import DELAY
from tenancy.registry.lookup import known_slug, not_found, one_tenant
from tenancy.registry.offline import seconds_offline

if TYPE_CHECKING:
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.storage.cross_tenant import CrossTenantProjections
    from tenancy.storage.inventory import ShardInventory
    from tenancy.storage.remover import Remover

__all__ = ["PurgeCertificate", "Purging"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeCertificate:
    """Proof that nothing is left of a tenant, from the catalog and the registry after the removal."""

    tenant_id: UUID
    slug: str
    slug_hash: str
    """The registry keeps this hash, to tell a purged tenant from one that never existed."""
    created_at: datetime
    purged_at: datetime
    removed: Mapping[str, int]
    """The number of removed schemas, views, tables and sequences."""
    left: Mapping[str, int]
    """The number of each that is left, and of registry rows: all zero."""
    others: tuple[str, ...] = ()
    """The names of what remains in an adopted tenant's placement, because it is not the tenant's."""


class Purging:
    """Purges tenants. Safe to use from many threads and processes."""

    def __init__(
        self,
        registry: Registry,
        inventory: ShardInventory,
        remover: Remover,
        *,
        application_specs: Callable[[], Sequence[ApplicationSpec]],
        cross_tenant: CrossTenantProjections,
        changed: Callable[[Tenant], None],
    ) -> None:
        self._registry = registry
        self._inventory = inventory
        self._remover = remover
        self._application_specs = application_specs
        self._cross_tenant = cross_tenant
        self._changed = changed

    def purge(self, tenants: Sequence[str | Tenant], actor: str | None) -> Iterator[PurgeCertificate]:
        """Remove tenants and all their data permanently; yield the certificate of each.

        Raises TenantNotFound for the first unknown slug, before anything is removed, and TransitionRefused for a Tenant
        whose status has changed.
        """
        check_actor(actor)
        check_list("The tenants", tenants, "a list of slugs or Tenants")
        tenants = list(tenants)
        for each in tenants:
            check_type("A tenant", each, (str, Tenant), "its slug or a Tenant")
        there = self._registry.find_many([known_slug(each) for each in tenants if isinstance(each, str)])
        by_id = self._registry.get_many([each.id for each in tenants if isinstance(each, Tenant)])
        for each in tenants:
            _check_is_meant(each, there.get(known_slug(each)) if isinstance(each, str) else by_id.get(each.id))
        if tenants:
            self._cross_tenant.check_code()  # before anything is removed
        marked = [self._mark_purging(each, actor) for each in tenants]
        # Until then, another process may take the tenant for one that it may write: nothing proves that none does.
        delay = DELAY - min((seconds for _, seconds in marked), default=DELAY)
        if delay > 0:
            time.sleep(delay)
        for tenant, _ in marked:
            yield self._remove(tenant, actor)

    def due(self) -> Sequence[Tenant]:
        """Return the deleted tenants whose grace period is over."""
        now = datetime.now(UTC)
        deleted = self._registry.list(TenantStatus.DELETED)
        return [tenant for tenant in deleted if tenant.due_at is not None and tenant.due_at <= now]

    def _mark_purging(self, wanted: str | Tenant, actor: str | None) -> tuple[Tenant, float]:
        """Set the status; return the tenant, and for how many seconds it has been offline before."""
        with one_tenant(self._registry, wanted) as (session, tenant):
            _check_is_meant(wanted, tenant)
            purging, seconds = [tenant], seconds_offline(self._registry, session, tenant)
            if next_status(tenant, Action.PURGE) is not None:
                columns = {"status": TenantStatus.PURGING, "due_at": None}
                purging = list(self._registry.change(session, purging, Action.PURGE, actor, **columns))
        self._changed(purging[0])
        return purging[0], seconds

    def _remove(self, tenant: Tenant, actor: str | None) -> PurgeCertificate:
        application_specs = self._application_specs()
        self._cross_tenant.forget(tenant)
        removed = self._remover.drop(tenant, application_specs)
        left = self._inventory.of_tenant(tenant, application_specs)
        if left:
            msg = f"Something is left of tenant {tenant.slug!r}: {left.count()}."
            raise TenancyError(msg, remedy=f"Resume the purge: tenancy purge {tenant.slug}", tenant=tenant.slug)
        others = self._inventory.others(tenant, application_specs, self._registry.list() if tenant.adopted else ())
        with self._registry.locked(tenant.id) as (session, current):
            # No current tenant: another process has purged it in the meantime.
            purged_at = self._registry.erase(session, tenant, actor) if current else datetime.now(UTC)
        self._changed(tenant)
        fields = self._registry.remaining_rows(tenant.id)
        return PurgeCertificate(
            tenant_id=tenant.id,
            slug=tenant.slug,
            slug_hash=self._registry.hash(tenant.slug),
            created_at=tenant.created_at,
            purged_at=purged_at,
            removed=removed.count(),
            left={**left.count(), "registry rows": fields},
            others=others,
        )


def _check_is_meant(wanted: str | Tenant, tenant: Tenant | None) -> None:
    if tenant is None:
        raise not_found(wanted if isinstance(wanted, str) else wanted.slug)
    if isinstance(wanted, Tenant) and tenant.status not in (wanted.status, TenantStatus.PURGING):
        msg = f"Tenant {tenant.slug!r} is now {tenant.status}, but was {wanted.status} when the purge was requested."
        raise TransitionRefused(msg, remedy=f"To purge it anyway: tenancy purge {tenant.slug}", tenant=tenant.slug)

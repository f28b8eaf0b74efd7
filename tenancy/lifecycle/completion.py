"""Complete the creation of tenants: create their tables, run their hooks, activate them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from tenancy.errors import HookFailed, TenancyError, TenantNotReady, TenantPurged
from tenancy.model.placement import Placement
from tenancy.model.tenant import Action, Tenant, TenantStatus, check_status
from tenancy.registry import Registry

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.lifecycle.hooks import Hooks
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.model.versions import Versions
    from tenancy.storage.migrator import Migrator
    from tenancy.storage.provisioner import Provisioner
    from tenancy.storage.remover import Remover
    from tenancy.storage.shard import Shard

__all__ = ["Completion"]


class Completion:
    """Completes registered tenants. Safe to use from many threads and processes."""

    def __init__(
        self,
        registry: Registry,
        *,
        shard: Shard,
        provisioner: Provisioner,
        migrator: Migrator,
        remover: Remover,
        hooks: Hooks,
        application_specs: Callable[[], Sequence[ApplicationSpec]],
        head: Callable[[], Versions],
        changed: Callable[[Tenant], None],
    ) -> None:
        self._registry = registry
        self._shard = shard
        self._provisioner = provisioner
        self._migrator = migrator
        self._remover = remover
        self._hooks = hooks
        self._application_specs = application_specs
        self._head = head
        self._changed = changed

    def complete_each(self, tenants: Sequence[Tenant], actor: str | None) -> Sequence[Tenant | TenancyError]:
        """Complete tenants in provisioning; return each tenant, or the error of its hooks, in the same order.

        The registry rows stay locked while tables are created, so no other process creates or drops tables of these
        tenants meanwhile. While hooks run, only their lease is held. Raises TenantPurged.
        """
        for tenant in tenants:
            _check_is_kept(tenant)
        if all(tenant.status is not TenantStatus.PROVISIONING for tenant in tenants):
            return tenants
        self._hooks.check()
        with self._migrator.turn(), self._with_tables(tenants, _is_provisioning) as (session, current):
            waiting = [tenant for tenant in current if tenant.status is TenantStatus.PROVISIONING]
            hooked = [tenant for tenant in waiting if self._hooks.apply_to(tenant)]
            ready = list(self._activate(session, [each for each in waiting if each not in hooked], actor))
            hooked = self._record_versions(session, hooked)
        failures: dict[UUID, TenancyError] = {}
        for tenant in hooked:
            self._changed(tenant)  # its versions
            try:
                self._hooks.run(tenant)
            except (HookFailed, TenantNotReady) as error:
                failures[tenant.id] = error
        if hooked:
            # Without a lock since the hooks began: another process may have changed them.
            with self._registry.locked([tenant.id for tenant in hooked]) as (session, now_locked):
                waiting = [each for each in now_locked if _is_provisioning(each) and each.id not in failures]
                if waiting:
                    ready += self._registry.change(session, waiting, Action.ACTIVATE, actor, status=TenantStatus.ACTIVE)
            gone = {tenant.id for tenant in hooked} - {tenant.id for tenant in now_locked}
            current = [*(tenant for tenant in current if tenant.id not in gone), *now_locked]
        now = {tenant.id: tenant for tenant in (*current, *ready)}
        return [failures.get(tenant.id) or self._completed(tenant, now.get(tenant.id)) for tenant in tenants]

    def _completed(self, tenant: Tenant, now: Tenant | None) -> Tenant:
        self._changed(tenant)
        if now is None:
            msg = f"Tenant {tenant.slug!r} was purged while it was being created."
            raise TenantPurged(msg, tenant=tenant.slug)
        _check_is_kept(now)
        return now

    def _record_versions(self, session: Session, waiting: Iterable[Tenant]) -> list[Tenant]:
        """Migrate tenants whose hooks come next, and record the versions: the hooks use the tables."""
        head = self._head()
        return [
            recorded
            for each in waiting
            for recorded in self._registry.record_versions(session, [each], self._migrator.start(each, session, head))
        ]

    def _activate(self, session: Session, waiting: Iterable[Tenant], actor: str | None) -> Sequence[Tenant]:
        head, change, status = self._head(), Action.ACTIVATE, TenantStatus.ACTIVE
        groups: dict[Versions, list[Tenant]] = {}
        for each in waiting:
            groups.setdefault(self._migrator.start(each, session, head), []).append(each)
        changed = (
            self._registry.change(session, tenants, change, actor, status=status, versions=versions)
            for versions, tenants in groups.items()
        )
        return [tenant for tenants in changed for tenant in tenants]

    def create_missing(self, tenant: Tenant, actor: str | None = None) -> None:
        """Create and record tables that a tenant has lost or that are new in the code, unless it is being purged."""
        with self._with_tables([tenant], _is_provisioned) as (session, current):
            head = self._head()
            lacking = [each for each in current if _is_provisioned(each) and each.versions.lacks(head.created)]
            for each in lacking:
                self._registry.change(session, [each], Action.MIGRATE, actor, versions=each.versions.extended_by(head))
        for each in lacking:
            self._changed(each)

    @contextmanager
    def _with_tables(
        self, tenants: Sequence[Tenant], needs_tables: Callable[[Tenant], bool]
    ) -> Iterator[tuple[Session, Sequence[Tenant]]]:
        """Create the tables of tenants that ``needs_tables`` selects, and yield all existing ones with rows locked."""
        application_specs = self._application_specs()
        early: list[Tenant] = []
        if self._shard.is_file_of_registry:
            # Before the rows are locked: in one SQLite file, their connections would wait for that transaction.
            early = [tenant for tenant in tenants if needs_tables(tenant)]
            self._provisioner.create_extra_tables(early, application_specs)
        with self._registry.locked([tenant.id for tenant in tenants]) as (session, current):
            lacking = [tenant for tenant in current if needs_tables(tenant)]
            if not self._shard.is_file_of_registry:
                self._provisioner.create_extra_tables(lacking, application_specs)
            self._provisioner.create_tables([tenant.placement for tenant in lacking], application_specs, session)
            yield session, current
        kept = {tenant.id for tenant in current if tenant.status is not TenantStatus.PURGING}
        for tenant in early:
            if tenant.id not in kept and not tenant.adopted and not self._is_placed(tenant.placement):
                self._remover.drop(tenant, application_specs)  # created after another process had purged it

    def _is_placed(self, placement: Placement) -> bool:
        """Return whether a tenant has the placement, for example one that adopted the tables of a purged tenant."""
        return any(tenant.placement == placement for tenant in self._registry.list())


def _is_provisioning(tenant: Tenant) -> bool:
    return tenant.status is TenantStatus.PROVISIONING and not tenant.adopted


def _is_provisioned(tenant: Tenant) -> bool:
    return tenant.status not in (TenantStatus.PROVISIONING, TenantStatus.PURGING)


def _check_is_kept(tenant: Tenant) -> None:
    if tenant.status is TenantStatus.PURGING:
        check_status(tenant, writes=False)

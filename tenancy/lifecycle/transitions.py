"""State transitions of existing tenants: each is one recorded change in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from eventsourcing.persistence import IntegrityError

from tenancy.arguments import check_type
from tenancy.errors import TenantExists, TransitionRefused
from tenancy.model.slugs import check_reserved, normalize
from tenancy.model.tenant import Action, Tenant, TenantStatus, check_status
from tenancy.registry import Registry
from tenancy.registry.lookup import known_slug, not_found, one_tenant
from tenancy.registry.offline import record_offline

if TYPE_CHECKING:
    from tenancy.settings import TenancySettings

__all__ = ["TRANSITIONS", "Transition", "Transitions", "next_status"]


class Transition(NamedTuple):
    """The statuses that an action applies to and the one it leads to; ``target`` None means the previous status."""

    sources: frozenset[TenantStatus]
    target: TenantStatus | None


_SERVING: Final = frozenset({TenantStatus.ACTIVE, TenantStatus.SUSPENDED})
_KEPT: Final = _SERVING | {TenantStatus.ARCHIVED}

TRANSITIONS: Final[Mapping[Action, Transition]] = {
    Action.ACTIVATE: Transition(frozenset({TenantStatus.PROVISIONING}), TenantStatus.ACTIVE),
    Action.SUSPEND: Transition(frozenset({TenantStatus.ACTIVE}), TenantStatus.SUSPENDED),
    Action.RESUME: Transition(frozenset({TenantStatus.SUSPENDED}), TenantStatus.ACTIVE),
    Action.ARCHIVE: Transition(_SERVING, TenantStatus.ARCHIVED),
    Action.RESTORE: Transition(frozenset({TenantStatus.ARCHIVED}), None),
    Action.DELETE: Transition(_KEPT, TenantStatus.DELETED),
    Action.UNDELETE: Transition(frozenset({TenantStatus.DELETED}), None),
    Action.PURGE: Transition(frozenset(TenantStatus) - {TenantStatus.PURGING}, TenantStatus.PURGING),
}
"""All transitions. Other actions keep the status."""


class Transitions:
    """Changes tenants' statuses and names. Safe to use from many threads and processes."""

    def __init__(self, settings: TenancySettings, registry: Registry, changed: Callable[[Tenant], None]) -> None:
        self._settings = settings
        self._registry = registry
        self._changed = changed

    def move(
        self,
        wanted: str | Tenant,
        action: Action,
        actor: str | None,
        *,
        reason: str | None = None,
        reads: bool | None = None,
    ) -> Tenant:
        """Change a tenant's status, and return the changed tenant.

        If the tenant has that status already, only a given ``reason`` or ``reads`` is changed. Raises TenantNotFound,
        and TransitionRefused where the action does not apply.
        """
        if reads is not None:
            check_type("reads", reads, bool, "True, False or None")
        with one_tenant(self._registry, wanted) as (session, tenant):
            status = next_status(tenant, action)
            if status is None:
                given = {"reason": reason, "reads": reads}
                columns: dict[str, Any] = {
                    key: new for key, new in given.items() if new not in (None, getattr(tenant, key))
                }
                if not columns:
                    return tenant
            else:
                columns = {"status": status, "reason": reason, **self._columns_of(tenant, action, reads=reads)}
            (changed,) = self._registry.change(
                session, [tenant], action, actor, remark=columns.get("reason"), **columns
            )
        if status is not None:
            record_offline(self._registry, changed)
        self._changed(changed)
        return changed

    def _columns_of(self, tenant: Tenant, action: Action, *, reads: bool | None) -> dict[str, Any]:
        """Return the columns that change with the status: earlier statuses, the due date, whether reads are allowed."""
        columns: dict[str, Any] = {"due_at": None}
        if action is Action.SUSPEND:
            columns["reads"] = bool(reads)
        elif action in (Action.ARCHIVE, Action.DELETE):
            columns["previous"] = (*tenant.previous, tenant.status)
        elif action in (Action.RESTORE, Action.UNDELETE):
            columns["previous"] = tenant.previous[:-1]
        if action is Action.DELETE:
            columns["due_at"] = datetime.now(UTC) + timedelta(days=self._settings.grace_days)
        return columns

    def rename(self, wanted: str | Tenant, new_slug: str | None, name: str | None, actor: str | None) -> Tenant:
        """Change a tenant's slug, name or both; its id and its tables stay. Raises TenantExists."""
        old = wanted.slug if isinstance(wanted, Tenant) else known_slug(wanted)
        new = old if new_slug is None else normalize(new_slug, self._settings.slugs)
        try:
            # Lock both slugs in one query, in id order, to avoid a deadlock of two tenants that exchange slugs.
            with self._registry.locked([old, new]) as (session, tenants):
                by_slug = {tenant.slug: tenant for tenant in tenants}
                tenant = by_slug.get(old)
                if tenant is None or (isinstance(wanted, Tenant) and wanted.id != tenant.id):
                    raise not_found(old)
                if tenant.status is TenantStatus.PURGING:
                    check_status(tenant, writes=False)
                if by_slug.get(new, tenant) is not tenant:
                    raise _taken(new)
                if new != old:
                    check_reserved(new, self._settings.reserved_slugs)
                columns = {"slug": new, "name": tenant.name if name is None else name}
                if columns == {"slug": tenant.slug, "name": tenant.name}:
                    return tenant
                remark = f"was {old}" if new != old else None
                (renamed,) = self._registry.change(session, [tenant], Action.RENAME, actor, remark=remark, **columns)
        except IntegrityError:
            raise _taken(new) from None
        self._changed(renamed)
        return renamed


def _taken(slug: str) -> TenantExists:
    return TenantExists(f"Tenant {slug!r} already exists.", remedy="Choose another slug.", tenant=slug)


def next_status(tenant: Tenant, action: Action) -> TenantStatus | None:
    """Return the status that an action leads to, or None if the tenant has it already; raises TransitionRefused."""
    sources, target = TRANSITIONS[action]
    if target is not None and tenant.status is target:
        return None
    if tenant.status not in sources:
        if target is None and tenant.status in _KEPT:
            return None  # restored or undeleted already
        accepted = " or ".join(status for status in TenantStatus if status in sources)
        msg = f"Tenant {tenant.slug!r} is {tenant.status}: {action} is for tenants that are {accepted}."
        raise TransitionRefused(msg, remedy=_FIRST.get(tenant.status, "").format(tenant.slug), tenant=tenant.slug)
    return target if target is not None else tenant.previous[-1]


_FIRST: Final[Mapping[TenantStatus, str]] = {
    TenantStatus.PROVISIONING: "Complete it first: tenancy doctor --repair",
    TenantStatus.ARCHIVED: "Restore it first: tenancy restore {}",
    TenantStatus.DELETED: "Undelete it first: tenancy undelete {}",
    TenantStatus.PURGING: "Finish purging it: tenancy purge {}",
}

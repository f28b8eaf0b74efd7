"""Operators read tenants that refuse everyone else. The history says who did."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from tenancy import context
from tenancy.arguments import check_type
from tenancy.model.tenant import Action, Tenant, check_status
from tenancy.registry.lookup import one_tenant
from tenancy.registry.offline import forget_offline

if TYPE_CHECKING:
    from tenancy.registry import Registry

__all__ = ["operator_scope"]


def operator_scope(
    registry: Registry, tenancy: object, tenant: Tenant, operator: str, changed: Callable[[Tenant], None]
) -> AbstractContextManager[None]:
    """Record that an operator reads a tenant, and return the context in which reading is all that is allowed.

    Raises a TenantUnavailable for a tenant that is neither active nor suspended nor archived.
    """
    check_type("as_operator", operator, str, "the operator's id")
    with one_tenant(registry, tenant) as (session, current):
        check_status(current, writes=False, as_operator=True)
        registry.change(session, [current], Action.INSPECT, operator)
        # A purge must give the operator's process the time to see it.
        forget_offline(registry, session, current)
    changed(current)
    return context.scope(tenancy, current.id, is_operator=True)

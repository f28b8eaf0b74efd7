"""Where a tenant's quotas come from: its metadata, or a function of the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eventsourcing.utils import get_topic, resolve_topic

from eventsourcing_sqlalchemy.errors import SettingsError
from tenancy.errors import InvalidArgument
from tenancy.model.quotas import Quotas, quotas_of

if TYPE_CHECKING:
    from tenancy.model.tenant import Tenant
    from tenancy.settings import TenancySettings

__all__ = ["quotas_for", "topic_of"]


def quotas_for(tenant: Tenant, settings: TenancySettings) -> Quotas | None:
    """Return the quotas of a tenant; None without any."""
    if settings.quotas_topic is None:
        return quotas_of(tenant.metadata)
    quotas = _function(settings.quotas_topic)(tenant)
    if quotas is not None and not isinstance(quotas, Quotas):
        msg = f"{settings.quotas_topic} returned {type(quotas).__name__} for tenant {tenant.slug!r}."
        raise InvalidArgument(msg, remedy="Return Quotas(events=...) or None.")
    return quotas or None


def topic_of(function: Callable[[Tenant], Quotas | None]) -> str:
    """Return the topic of a function for TENANCY_QUOTAS; raises InvalidArgument for one that other processes could not
    import.
    """
    name = getattr(function, "__qualname__", "")
    if not callable(function) or not name or "<" in name:
        msg = "quotas must be a function that other processes can import."
        raise InvalidArgument(msg, remedy="Define it at the top level of a module: Tenancy(quotas=plan_quotas)")
    return get_topic(function)


def _function(topic: str) -> Callable[[Tenant], Any]:
    try:
        found: Callable[[Tenant], Any] = resolve_topic(topic)
    except Exception as error:
        msg = f"TENANCY_QUOTAS is {topic!r}, which cannot be imported: {error}. Name a function as module:function."
        raise SettingsError(msg, variable="TENANCY_QUOTAS") from error
    if not callable(found):
        msg = f"TENANCY_QUOTAS is {topic!r}, which is not a function. Name a function as module:function."
        raise SettingsError(msg, variable="TENANCY_QUOTAS")
    return found

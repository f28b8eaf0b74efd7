"""The tables whose events count as a tenant's usage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.model.placement import Placement
    from tenancy.model.tenant import Tenant
    from tenancy.registry.usage import CountKey

__all__ = ["events_tables"]


def events_tables(
    tenants: Iterable[Tenant],
    application_specs: Sequence[ApplicationSpec],
    default_schema_of: Callable[[Placement], str | None],
) -> dict[CountKey, TableName]:
    """Return the events table of each application of each tenant."""
    with_events = [each for each in application_specs if "events" in each.tables]
    return {
        (tenant.id, spec.application): table.name
        for tenant in tenants
        for default in [default_schema_of(tenant.placement)]
        for spec in with_events
        for table in spec.specs(tenant.placement, default)
        if table.kind == "events"
    }

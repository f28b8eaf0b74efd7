"""The usage of tenants: what they have recorded in their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from tenancy.metering.rollup import Rollup
from tenancy.metering.tables import events_tables
from tenancy.model.usage import Count, Usage, total
from tenancy.registry.usage import CountKey, CountStore

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.model.tenant import Tenant
    from tenancy.registry.registry import Registry
    from tenancy.storage.shard import Shard

__all__ = ["FleetUsage"]


class FleetUsage:
    """Measures the usage of the tenants of a shard. Safe to use from many threads and processes."""

    def __init__(
        self,
        shard: Shard,
        registry: Registry,
        application_specs: Callable[[], Sequence[ApplicationSpec]],
    ) -> None:
        self._shard = shard
        self._application_specs = application_specs
        self._store = CountStore(registry)

    def measure(self, tenants: Iterable[Tenant]) -> list[Usage]:
        """Return the usage of tenants now. Counts what they have recorded since the last rollup, and stores the counts.

        It takes one query for the last ids of a thousand tables, and one more for every hundred tables with new events.
        """
        tenants = list(tenants)
        counts = Rollup(self._shard.datastore, self._store).run(self._tables(tenants))
        return _totals(tenants, counts)

    def recorded(self, tenants: Iterable[Tenant]) -> list[Usage]:
        """Return the usage of tenants as the last rollup has counted it, with one query."""
        tenants = list(tenants)
        return _totals(tenants, self._store.read({tenant.id for tenant in tenants}))

    def _tables(self, tenants: Sequence[Tenant]) -> dict[CountKey, TableName]:
        return events_tables(tenants, self._application_specs(), self._shard.default_schema_of)


def _totals(tenants: Sequence[Tenant], counts: dict[CountKey, Count]) -> list[Usage]:
    by_tenant: dict[UUID, list[Count]] = {}
    for (tenant_id, _), count in counts.items():
        by_tenant.setdefault(tenant_id, []).append(count)
    now = datetime.now(UTC)
    return [total(tenant.slug, tenant.id, by_tenant.get(tenant.id, ()), now) for tenant in tenants]

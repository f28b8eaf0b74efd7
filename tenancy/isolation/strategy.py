"""Decide where a tenant's tables go: in schemas of its own, or beside other tenants' tables with a prefix.

A strategy queries no database. The templates of the settings choose the strategy for new tenants; a tenant keeps the
strategy of its placement when the templates change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Final
from uuid import UUID

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.naming import EVENTS_INDEX_SUFFIX
from tenancy.isolation.names import MAX_READABLE, TENANT_SUFFIX, is_name_of, tenant_part
from tenancy.model.placement import Placement

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.settings import TenancySettings

__all__ = ["IsolationStrategy", "PrefixIsolation", "SchemaIsolation", "allocate_placement", "strategy_of"]


class IsolationStrategy(ABC):
    """Where tenants' tables go, and which tables are one tenant's. It has no state."""

    owns_schema: ClassVar[bool]
    """Whether a tenant's schemas hold no other tables, so that purging the tenant drops them."""

    def allocate(
        self, settings: TenancySettings, slug: str, tenant_id: UUID, applications: Iterable[str], limit: int | None
    ) -> Placement:
        """Return a new tenant's placement.

        ``limit`` is the maximum number of bytes of a name in the database: the longer the application names, the fewer
        slug characters fit. Raises SettingsError when there is no room at all.
        """
        tenant = tenant_part(slug, tenant_id, _room(settings, applications, limit))
        schema = (settings.schema or "").replace("{tenant}", tenant) or None
        return Placement(schema, settings.table_prefix.replace("{tenant}", tenant), owns_schema=self.owns_schema)

    @abstractmethod
    def own_prefix(self, placement: Placement) -> str:
        """Return the prefix of the tenant's names in the placement's schemas; may contain ``{application}``."""

    def covers(self, placement: Placement, name: TableName, default_schema: str | None) -> bool:
        """Return whether a table is in a tenant's placement; ``default_schema`` holds tables without a schema."""
        if placement.schema is None:
            is_in_schema = name.schema == default_schema
        else:
            is_in_schema = name.schema is not None and is_name_of(name.schema, placement.schema)
        return is_in_schema and is_name_of(name.name, self.own_prefix(placement), and_more=True)


class SchemaIsolation(IsolationStrategy):
    """Each tenant has schemas of its own."""

    owns_schema = True

    def own_prefix(self, placement: Placement) -> str:
        return ""


class PrefixIsolation(IsolationStrategy):
    """All tenants share schemas, or a database without schemas; each has its own prefix."""

    owns_schema = False

    def own_prefix(self, placement: Placement) -> str:
        return placement.table_prefix


_SCHEMA: Final = SchemaIsolation()
_PREFIX: Final = PrefixIsolation()


def strategy_of(placement: Placement) -> IsolationStrategy:
    """Return the strategy that a tenant was created with."""
    return _SCHEMA if placement.owns_schema else _PREFIX


def allocate_placement(
    settings: TenancySettings, slug: str, tenant_id: UUID, applications: Iterable[str], limit: int | None
) -> Placement:
    """Return a new tenant's placement by the strategy of the settings; see :meth:`IsolationStrategy.allocate`."""
    strategy = _SCHEMA if "{tenant}" in (settings.schema or "") else _PREFIX
    return strategy.allocate(settings, slug, tenant_id, applications, limit)


def _room(settings: TenancySettings, applications: Iterable[str], limit: int | None) -> int:
    if limit is None:
        return MAX_READABLE
    room = MAX_READABLE
    for application in applications:
        table = Placement(None, settings.table_prefix).prefix_of(application) + application.lower() + "_events"
        schema = Placement(settings.schema, "").schema_of(application) or ""
        for name in (table + EVENTS_INDEX_SUFFIX, schema):
            count = name.count("{tenant}")
            left = limit - len(name.replace("{tenant}", TENANT_SUFFIX).encode())
            if left < count:
                msg = (
                    f"The name of the application {application!r} leaves no room for a tenant in names of at most "
                    f"{limit} bytes. Shorten it, TENANCY_SCHEMA or TENANCY_TABLE_PREFIX."
                )
                raise SettingsError(msg, variable="TENANCY_TABLE_PREFIX")
            room = min(room, left // count) if count else room
    return room

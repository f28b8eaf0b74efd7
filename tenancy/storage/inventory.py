"""List the tables that tenants have or lack in a shard. Read-only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy import migrations, sequences
from eventsourcing_sqlalchemy.naming import TableName, quote
from eventsourcing_sqlalchemy.tables import TableSpec, missing_tables
from tenancy.isolation.names import fixed_start, name_pattern, placement_pattern
from tenancy.isolation.spaces import is_in_space_of, spaces_start, tenant_of_space
from tenancy.isolation.strategy import strategy_of
from tenancy.model.placement import Placement
from tenancy.model.tenant import Tenant
from tenancy.storage.created_relations import CreatedRelations, place_of

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.dialects.protocols import Executor, RelationKind, SequenceBehind
    from tenancy.migrations.place import MigrationPlace
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.storage.shard import Shard

__all__ = ["ShardInventory", "TenantInventory"]


@dataclass(frozen=True, slots=True)
class TenantInventory:
    """A tenant's schemas and relations in the database."""

    schemas: tuple[str, ...] = ()
    relations: tuple[tuple[RelationKind, TableName], ...] = ()
    """Tables, views and sequences, each with its kind."""

    def __bool__(self) -> bool:
        return bool(self.schemas or self.relations)

    def of(self, *kinds: RelationKind) -> list[TableName]:
        """Return the relations of some kinds."""
        return [name for kind, name in self.relations if kind in kinds]

    def count(self) -> dict[str, int]:
        """Return the number of each kind."""
        return {
            "schemas": len(self.schemas),
            "tables": len(self.of("table", "foreign table")),
            "views": len(self.of("view", "materialized view")),
            "sequences": len(self.of("sequence")),
        }


class ShardInventory:
    """Lists tenants' tables in one shard. Safe to use from many threads."""

    def __init__(self, shard: Shard, tenants: Callable[[], Iterable[Tenant]]) -> None:
        self._shard = shard
        self._tenants = tenants

    def specs(self, placement: Placement, application_specs: Iterable[ApplicationSpec]) -> list[TableSpec]:
        """Return the tables that a tenant must have."""
        default = self._shard.default_schema_of(placement)
        return [spec for application_spec in application_specs for spec in application_spec.specs(placement, default)]

    def missing(self, placement: Placement, application_specs: Iterable[ApplicationSpec]) -> list[TableSpec]:
        """Return the tables that a tenant lacks; raises ProgrammingError for one of another shape."""
        specs = self.specs(placement, application_specs)
        names = [spec.name for spec in specs]
        describe = self._shard.datastore.dialect.describe
        return missing_tables(specs, self._shard.datastore.run(lambda executor: describe(executor, names)))

    def version(self, placement: Placement, application_specs: Iterable[ApplicationSpec]) -> int:
        """Return the version of the oldest of a tenant's own tables, by its shape."""
        specs = self.specs(placement, application_specs)
        describe = self._shard.datastore.dialect.describe
        shapes = self._shard.datastore.run(lambda executor: describe(executor, [spec.name for spec in specs]))
        return migrations.version_of(specs, shapes)

    def versions(
        self, tenants: Sequence[Tenant], application_specs: Sequence[ApplicationSpec]
    ) -> Iterator[tuple[Tenant, int]]:
        """Yield each tenant with the version of the oldest of its own tables; queries the database once."""
        shapes = self._shard.datastore.run(self._shard.datastore.dialect.describe_all)
        for tenant in tenants:
            yield tenant, migrations.version_of(self.specs(tenant.placement, application_specs), shapes)

    def faults(
        self, tenants: Sequence[Tenant], application_specs: Sequence[ApplicationSpec]
    ) -> Iterator[tuple[Tenant, str]]:
        """Yield each tenant with missing or wrong tables, and what is wrong; queries the database once."""
        shapes = self._shard.datastore.run(self._shard.datastore.dialect.describe_all)
        for tenant in tenants:
            try:
                missing = missing_tables(self.specs(tenant.placement, application_specs), shapes)
            except ProgrammingError as error:
                yield tenant, str(error)
            else:
                if missing:
                    names = ", ".join(str(spec.name) for spec in missing)
                    yield tenant, f"missing: {names}"

    def sequences_behind(
        self, tenants: Sequence[Tenant], application_specs: Sequence[ApplicationSpec]
    ) -> list[tuple[Tenant, SequenceBehind]]:
        """Return each sequence that is behind its table's ids, with its tenant, in few queries."""
        owners = {
            spec.name: tenant
            for tenant in tenants
            for spec in self.specs(tenant.placement, application_specs)
            if spec.kind == "events"
        }
        return [
            (owners[counter.table], counter) for counter in sequences.find_behind(self._shard.datastore, list(owners))
        ]

    def orphans(self, tenants: Sequence[Tenant], application_specs: Sequence[ApplicationSpec]) -> list[str]:
        """Return the placements that look like tenants, by the templates for new tenants, but are not in ``tenants``.

        Queries the database once.
        """
        settings = self._shard.settings
        template = Placement(settings.schema, settings.table_prefix)
        owned = {spec.name for tenant in tenants for spec in self.specs(tenant.placement, application_specs)}
        patterns = [
            placement_pattern(f"{spec.name.schema or ''}\0{spec.name.name}")
            for spec in self.specs(template, application_specs)
        ]
        ids = {tenant.id for tenant in tenants}
        found = set()
        for table in set(self._shard.datastore.run(self._shard.datastore.dialect.describe_all)) - owned:
            for match in filter(None, (each.fullmatch(f"{table.schema or ''}\0{table.name}") for each in patterns)):
                found.add(str(template).replace("{tenant}", match["tenant"]))
            space, tenant_id = tenant_of_space(table)
            if tenant_id is not None and tenant_id not in ids:
                found.add(space)
        return sorted(found)

    def of_tenant(self, tenant: Tenant, application_specs: Sequence[ApplicationSpec]) -> TenantInventory:
        """Return everything in a tenant's schemas or with its prefix.

        An adopted tenant may share its schema: for it, only what its applications and views own, and what its
        migrations have created.
        """
        if tenant.adopted:
            found = self._in_adopted(tenant.placement, application_specs)
            owned = [each for each in found if self.owns(tenant.placement, each[1], application_specs)]
            created = self._created(tenant, application_specs)
            own = TenantInventory(relations=tuple(dict.fromkeys([*owned, *created])))
        else:
            own = self._shard.datastore.run(lambda executor: self._inventory(executor, tenant.placement))
        spaces = self._shard.datastore.run(lambda executor: self._in_spaces(executor, tenant.id))
        return TenantInventory(own.schemas + spaces.schemas, own.relations + spaces.relations)

    def _created(
        self, tenant: Tenant, application_specs: Sequence[ApplicationSpec]
    ) -> list[tuple[RelationKind, TableName]]:
        """Return what the migrations of an adopted tenant have created, the table that lists it last.

        It excludes what is another tenant's by now.
        """
        place = place_of(self._shard, tenant, application_specs)
        created = CreatedRelations(self._shard, tenant, place).read()
        if not created:
            return []
        fleet = [each for each in self._tenants() if each.id != tenant.id]
        theirs = self._created_beside(place, fleet, application_specs)
        return [
            (kind, name)
            for kind, name in created
            if name not in theirs and not any(self.covers(each, name, application_specs) for each in fleet)
        ]

    def _created_beside(
        self, place: MigrationPlace, fleet: Iterable[Tenant], application_specs: Sequence[ApplicationSpec]
    ) -> set[TableName]:
        """Return what migrations have created for adopted tenants whose names start with those of a place."""
        default, prefix = self._shard.default_schema, fixed_start(place.placement.table_prefix)
        found: set[TableName] = set()
        for each in fleet:
            other = place_of(self._shard, each, application_specs)
            is_beside = (other.schema or default) == (place.schema or default)
            if each.adopted and is_beside and other.created_table.startswith(prefix):
                found |= {name for _, name in CreatedRelations(self._shard, each, other).read()}
        return found

    def _in_spaces(self, executor: Executor, tenant_id: UUID) -> TenantInventory:
        """Return the spaces of a tenant's rebuilds."""
        dialect = self._shard.datastore.dialect
        if not dialect.has_schemas:
            return TenantInventory(
                relations=tuple(
                    (kind, TableName(None, name))
                    for start in spaces_start(tenant_id)
                    for kind, name in dialect.relations(executor, None, start)
                )
            )
        schemas = [name for start in spaces_start(tenant_id) for name in dialect.schemas(executor, start)]
        return TenantInventory(
            tuple(schemas),
            tuple(
                (kind, TableName(schema, name))
                for schema in schemas
                for kind, name in dialect.relations(executor, schema, "")
            ),
        )

    def others(
        self, tenant: Tenant, application_specs: Sequence[ApplicationSpec], tenants: Iterable[Tenant]
    ) -> tuple[str, ...]:
        """Return what is in an adopted tenant's placement but belongs neither to it, nor to the registry, nor to one of
        ``tenants``. A tenant that was not adopted owns its whole placement.
        """
        if not tenant.adopted:
            return ()
        fleet = [each for each in tenants if each.id != tenant.id]
        place = place_of(self._shard, tenant, application_specs)
        theirs = self._created_beside(place, fleet, application_specs)
        left = [
            str(name)
            for _, name in self._in_adopted(tenant.placement, application_specs)
            if not self.owns(tenant.placement, name, application_specs)
            and not self._is_of_registry(name)
            and name not in theirs
            and not any(self.covers(each, name, application_specs) for each in fleet)
        ]
        schemas = {
            tenant.placement.schema_of(application_spec.application) for application_spec in application_specs
        } - {None}
        there = self._shard.datastore.run(lambda executor: self._shard.datastore.dialect.schemas(executor, ""))
        return (*(f"schema {quote(name)}" for name in there if name in schemas), *left)

    def _in_adopted(
        self, placement: Placement, application_specs: Iterable[ApplicationSpec]
    ) -> list[tuple[RelationKind, TableName]]:
        """Return what has the schema and prefix of an adopted tenant's applications."""
        default = self._shard.default_schema_of(placement)
        locations = {
            (placement.schema_of(name) or default, placement.prefix_of(name))
            for name in (application_spec.application for application_spec in application_specs)
        }
        relations = self._shard.datastore.dialect.relations
        found = {
            (kind, TableName(schema, name))
            for schema, prefix in locations
            for kind, name in self._shard.datastore.run(partial(relations, schema=schema, prefix=prefix))
        }
        return sorted(found, key=lambda each: str(each[1]))

    def owns(self, placement: Placement, name: TableName, application_specs: Iterable[ApplicationSpec]) -> bool:
        """Return whether applications or views own a relation, by its name, in an adopted tenant's placement."""
        default, limit = self._shard.default_schema_of(placement), self._shard.identifier_limit
        return any(application_spec.owns(placement, default, name, limit) for application_spec in application_specs)

    def _is_of_registry(self, name: TableName) -> bool:
        schema = self._shard.settings.control_schema
        if self._shard.settings.control_has_schemas:
            return name.schema == schema
        return name.name.startswith(f"{schema}_")

    def _inventory(self, executor: Executor, placement: Placement) -> TenantInventory:
        dialect, strategy = self._shard.datastore.dialect, strategy_of(placement)
        schemas: Sequence[str | None]
        if placement.schema is None:
            schemas = [self._shard.default_schema]
        else:
            pattern = name_pattern(placement.schema)
            schemas = [
                name for name in dialect.schemas(executor, fixed_start(placement.schema)) if pattern.fullmatch(name)
            ]
        prefix = strategy.own_prefix(placement)
        names = name_pattern(prefix, and_more=True)
        relations = [
            (kind, TableName(schema, name))
            for schema in schemas
            for kind, name in dialect.relations(executor, schema, fixed_start(prefix))
            if names.fullmatch(name)
        ]
        return TenantInventory(tuple(filter(None, schemas)) if strategy.owns_schema else (), tuple(relations))

    def covers(self, tenant: Tenant, name: TableName, application_specs: Sequence[ApplicationSpec]) -> bool:
        """Return whether a table is, or would be if it existed, in the inventory of a tenant."""
        if is_in_space_of(tenant.id, name):
            return True
        if tenant.adopted:
            return self.owns(tenant.placement, name, application_specs)
        default = self._shard.default_schema_of(tenant.placement)
        return strategy_of(tenant.placement).covers(tenant.placement, name, default)

    def is_tenant_name(self, name: TableName) -> bool:
        """Return whether a table is, by the templates for new tenants, in some tenant's placement, or in a space of its
        rebuilds.
        """
        if tenant_of_space(name)[1] is not None:
            return True
        settings = self._shard.settings
        template = f"{settings.schema or self._shard.default_schema or ''}\0{settings.table_prefix}"
        pattern = placement_pattern(template).pattern.replace(re.escape("{application}"), ".+")
        return re.fullmatch(f"{pattern}.*", f"{name.schema or ''}\0{name.name}", re.DOTALL) is not None

"""A tenant that exists for a moment: the tables that the revisions create, to compare others with.

It is built with the database's own means, so its columns have the types that every tenant's columns have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from eventsourcing_sqlalchemy.engines.executors import ConnectionExecutor
from eventsourcing_sqlalchemy.errors import translate
from eventsourcing_sqlalchemy.naming import TableName
from tenancy.migrations.environment import MigrationRun
from tenancy.migrations.place import VERSION_TABLE, MigrationPlace
from tenancy.migrations.running import HEADS, migrate
from tenancy.model.placement import Placement
from tenancy.storage.created_relations import place_of

if TYPE_CHECKING:
    import sqlalchemy as sa

    from tenancy.migrations.revisions import RevisionDirectory
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.model.tenant import Tenant
    from tenancy.storage.shard import Shard

__all__ = ["Drift", "ReferenceTenant"]

# Tables of one query.
_PAGE: Final = 500

Columns = Mapping[str, str]
"""The types of a table's columns by name."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A table of a tenant that differs from what the tenant's revisions create."""

    tenant: Tenant
    table: TableName
    what: str


class ReferenceTenant:
    """Builds reference tenants in a shard, and compares others with them. Nothing of them remains."""

    def __init__(
        self, shard: Shard, directory: RevisionDirectory, application_specs: Sequence[ApplicationSpec]
    ) -> None:
        self._shard = shard
        self._directory = directory
        self._application_specs = application_specs

    @contextmanager
    def at(self, revisions: Sequence[str] = (HEADS,), metadata: Sequence[sa.MetaData] = ()) -> Iterator[MigrationRun]:
        """Yield the place of a reference tenant with these revisions; ``metadata`` is what autogenerate compares with.

        Requires the right to create a schema, where there are schemas. Raises what a revision raises.
        """
        datastore = self._shard.datastore
        try:
            with datastore.dialect.scratch(datastore.engine) as (connection, schema):
                placement = Placement(schema, "")
                executor = ConnectionExecutor(connection)
                for application_spec in self._application_specs:
                    for spec in application_spec.specs(placement, None):
                        executor.run_script(spec.ddl(type(connection.dialect)))
                run = MigrationRun(
                    place=MigrationPlace(placement, (), self._shard.identifier_limit),
                    dialect=connection.dialect,
                    connection=connection,
                    metadata=metadata,
                    has_schemas=datastore.dialect.has_schemas,
                    is_default_schema=True,
                )
                for revision in revisions:
                    migrate(self._directory, run, revision)
                yield run
        except SQLAlchemyError as error:
            raise translate(error, "The reference tenant could not be built") from error

    def _tables(self, revisions: tuple[str, ...]) -> dict[str, Columns]:
        """Return the tables that the revisions create, without those of applications."""
        dialect = self._shard.datastore.dialect
        with self.at(revisions) as run:
            assert run.connection is not None
            executor, schema = ConnectionExecutor(run.connection), run.place.schema
            of_applications = {
                spec.name.name for each in self._application_specs for spec in each.specs(run.place.placement, None)
            }
            names = [
                TableName(schema, name)
                for kind, name in dialect.relations(executor, schema, "")
                if kind == "table" and name != VERSION_TABLE and name not in of_applications
            ]
            shapes = dialect.describe(executor, names) if names else {}
            return {name.name: shape.columns for name, shape in shapes.items()}

    def drift(self, tenants: Iterable[Tenant]) -> Iterator[Drift]:
        """Yield the tables of tenants that differ, in one query for many tables and one reference for each version."""
        references: dict[tuple[str, ...], dict[str, Columns]] = {}
        wanted: dict[TableName, tuple[Tenant, Columns]] = {}
        for tenant in tenants:
            revisions = tenant.versions.migrations
            # A newer version of the code has migrated it: this one does not know the tables.
            if revisions and self._directory.applied(revisions) is not None:
                if revisions not in references:
                    references[revisions] = self._tables(revisions)
                for name, columns in references[revisions].items():
                    wanted[self._name(tenant, name)] = tenant, columns
        describe = self._shard.datastore.dialect.describe
        names = list(wanted)
        for start in range(0, len(names), _PAGE):
            page = names[start : start + _PAGE]
            shapes = self._shard.datastore.run(partial(describe, tables=page))
            for table in page:
                tenant, columns = wanted[table]
                for what in _differences(columns, shapes[table].columns if table in shapes else None):
                    yield Drift(tenant, table, what)

    def _name(self, tenant: Tenant, name: str) -> TableName:
        place = place_of(self._shard, tenant, self._application_specs)
        return TableName(place.schema or self._shard.default_schema, place.own_name(name))


def _differences(expected: Columns, found: Columns | None) -> Iterator[str]:
    if found is None:
        yield "is missing"
        return
    for column in sorted({*expected, *found}):
        if column not in found:
            yield f"has no column {column}"
        elif column not in expected:
            yield f"has a column {column} that no revision creates"
        elif expected[column] != found[column]:
            yield f"has column {column} of type {found[column]} instead of {expected[column]}"

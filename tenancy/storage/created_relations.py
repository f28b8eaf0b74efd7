"""Know what an adopted tenant's migrations have created, beside tables that are not the tenant's.

A table in the tenant's place lists the names. It changes in the migration's own transaction, so it is right after a
crash, and a purge needs neither the migrations nor their code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from eventsourcing_sqlalchemy.errors import translate
from eventsourcing_sqlalchemy.naming import TableName
from tenancy.isolation.names import fixed_start
from tenancy.migrations.place import MigrationPlace

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.dialects.protocols import RelationId, RelationKind
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.model.tenant import Tenant
    from tenancy.storage.shard import Shard

__all__ = ["CreatedRelations", "place_of"]


def place_of(shard: Shard, tenant: Tenant, application_specs: Sequence[ApplicationSpec]) -> MigrationPlace:
    """Return the place of a tenant's migrations."""
    return MigrationPlace(tenant.placement, [each.application for each in application_specs], shard.identifier_limit)


@dataclass(frozen=True, slots=True)
class CreatedRelations:
    """The relations that migrations have created in the place of one adopted tenant."""

    shard: Shard
    tenant: Tenant
    place: MigrationPlace

    @property
    def name(self) -> TableName:
        """The name of the table that lists them."""
        return TableName(self._schema, self.place.created_table)

    def read(self) -> list[tuple[RelationKind, TableName]]:
        """Return those that exist, the table that lists them last: a purge that was interrupted needs it again."""
        if not self.place.is_single:
            return []
        datastore, (schema, prefix) = self.shard.datastore, (self._schema, self._prefix)
        there = datastore.run(lambda executor: datastore.dialect.relations(executor, schema, prefix))
        if self.name.name not in (name for _, name in there):
            return []
        try:
            with datastore.get_connection() as connection:
                listed = self._listed(connection)
        except sa.exc.SQLAlchemyError as error:
            raise translate(error) from error
        found = [(kind, TableName(schema, name)) for kind, name in there if name in listed]
        return sorted(found, key=lambda each: (each[1] == self.name, str(each[1])))

    @contextmanager
    def recorded(self, session: Session) -> Iterator[None]:
        """Record what the block creates, renames and drops in the transaction of a session."""
        connection = session.connection()
        before = self._ids(session)
        listed = self._listed(connection) if self.name.name in before else set[str]()
        yield
        after = self._ids(session)
        created = _created(before, after, listed)
        if created == listed:
            return
        table = self._table()
        if self.name.name not in after:
            table.create(connection)
            created.add(self.name.name)
        connection.execute(sa.delete(table).where(table.c.tenant_id == str(self.tenant.id)))
        rows = [{"tenant_id": str(self.tenant.id), "name": name} for name in sorted(created)]
        if rows:
            connection.execute(sa.insert(table), rows)

    @property
    def _schema(self) -> str | None:
        return self.place.schema or self.shard.default_schema

    @property
    def _prefix(self) -> str:
        return fixed_start(self.place.placement.table_prefix)

    def _ids(self, session: Session) -> Mapping[str, RelationId]:
        datastore = self.shard.datastore
        work = partial(datastore.dialect.relation_ids, schema=self._schema, prefix=self._prefix)
        return datastore.run_in_session(session, work, savepoint=False)

    def _table(self) -> sa.Table:
        # With the tenant's id: the tables may be a copy of another tenant's, whose list is part of it.
        return sa.Table(
            self.name.name,
            sa.MetaData(),
            sa.Column("tenant_id", sa.Text, nullable=False),
            sa.Column("name", sa.Text, nullable=False),
            schema=self._schema,
        )

    def _listed(self, connection: sa.Connection) -> set[str]:
        table = self._table()
        return set(connection.scalars(sa.select(table.c.name).where(table.c.tenant_id == str(self.tenant.id))))


def _created(before: Mapping[str, RelationId], after: Mapping[str, RelationId], listed: set[str]) -> set[str]:
    """Return the names that are listed after a transaction, by the relations before and after it."""
    old_names = {number: name for name, (number, _) in before.items() if number}
    created = set()
    for name, (number, may_be_ours) in after.items():
        # A renamed table stays whose it was, and so does one that was replaced under its name, as Alembic's batches do.
        old = old_names.get(number, name)
        if old in listed if old in before else may_be_ours:
            created.add(name)
    return created

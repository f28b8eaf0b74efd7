"""Create missing tables and check existing ones, for one recorder or for many applications."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.scoped_sessions import check_idle, session_of
from eventsourcing_sqlalchemy.tables import TableShape, TableSpec, missing_tables

__all__ = ["create", "create_many", "find_missing"]

# Tables in one transaction of :func:`create_many`. More are not faster, and each takes about five of the locks that all
# clients of a server share.
_TABLES_PER_TRANSACTION: Final = 30


def find_missing(datastore: SQLAlchemyDatastore, specs: Sequence[TableSpec]) -> list[TableSpec]:
    """Return the tables that do not exist; raises ProgrammingError for an existing one of another shape."""
    names = [spec.name for spec in specs]
    if datastore.scoped_session is None:
        return missing_tables(specs, _describe(datastore, names))
    # In the scoped session: another connection may share its database connection, and end its transaction.
    session = session_of(datastore.scoped_session)
    was_idle = not session.in_transaction()
    try:
        look = partial(datastore.dialect.describe, tables=names)
        return missing_tables(specs, datastore.run_in_session(session, look, str(names[0]), savepoint=False))
    finally:
        if was_idle:
            session.rollback()  # ends the transaction that the check began


def _describe(datastore: SQLAlchemyDatastore, names: Sequence[TableName]) -> dict[TableName, TableShape]:
    shape_cache, dialect = datastore.shared.shape_cache, datastore.dialect
    shapes = shape_cache.take(names)
    if shapes is not None:
        return shapes
    if shape_cache.is_worth_reading(names):
        every = datastore.run(dialect.describe_all, str(names[0]))
        shape_cache.fill(every)
        found = {name: every[name] for name in names if name in every}
        if len(found) == len(names):
            return found
    return datastore.run(partial(dialect.describe, tables=names), str(names[0]))


def create(datastore: SQLAlchemyDatastore, specs: Sequence[TableSpec]) -> None:
    """Create tables, and their schemas, all or none; raises ProgrammingError for a missing right."""
    if datastore.scoped_session is not None and not datastore.dialect.is_server:
        check_idle(datastore.scoped_session)

    def create_and_check(executor: Executor) -> None:
        datastore.dialect.create(executor, specs, datastore.settings)
        # The index is not created where another one has its name, such as that of a renamed table. Without the index,
        # an event could be recorded twice. missing_tables() raises an error for a table without its unique index.
        missing_tables(specs, datastore.dialect.describe(executor, [spec.name for spec in specs]))

    datastore.run(create_and_check, str(specs[0].name))


def create_many(datastore: SQLAlchemyDatastore, specs: Iterable[TableSpec]) -> list[TableSpec]:
    """Create the missing tables of many applications, and their schemas; return those that were created.

    The tables of one schema (on SQLite: all) are created together or not at all, 30 at a time, schemas in the order in
    which they first appear. Raises ProgrammingError for a table of another shape and for a missing right: then the
    schemas before it exist, those after it do not, and a second call continues from there.

    Safe when many threads and processes do so at once, also beside applications that create their own tables. Several
    threads are faster on a server with several cores.
    """
    created: list[TableSpec] = []
    for groups in _together(specs):
        try:
            created += _create_missing(datastore, [spec for group in groups for spec in group])
        except PersistenceError:
            if len(groups) == 1:
                raise
            # One at a time, to create as many as possible and to find the one that fails.
            for group in groups:
                created += _create_missing(datastore, group)
    return created


def _create_missing(datastore: SQLAlchemyDatastore, specs: Sequence[TableSpec]) -> list[TableSpec]:
    if datastore.scoped_session is None:
        # Without reading ahead: new tables are in no cache.
        look = partial(datastore.dialect.describe, tables=[spec.name for spec in specs])
        missing = missing_tables(specs, datastore.run(look, str(specs[0].name)))
    else:
        missing = find_missing(datastore, specs)
    if missing:
        create(datastore, missing)
    return missing


def _together(specs: Iterable[TableSpec]) -> Iterator[list[Sequence[TableSpec]]]:
    """Yield the groups for one transaction, as many as fit, each of tables of one schema."""
    schemas: dict[str | None, dict[TableSpec, None]] = {}
    for spec in specs:
        schemas.setdefault(spec.name.schema, {})[spec] = None
    batch: list[Sequence[TableSpec]] = []
    for tables in schemas.values():
        rest = iter(tables)
        while group := list(islice(rest, _TABLES_PER_TRANSACTION)):
            if sum(map(len, batch)) + len(group) > _TABLES_PER_TRANSACTION:
                yield batch
                batch = []
            batch.append(group)
    if batch:
        yield batch

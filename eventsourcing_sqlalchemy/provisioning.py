"""Make the tables that recorders need, and check those that exist."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from eventsourcing_sqlalchemy.scoped import check_idle, session_of
from eventsourcing_sqlalchemy.tables import missing_tables

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from eventsourcing_sqlalchemy.dialects.base import Executor, TableShape
    from eventsourcing_sqlalchemy.naming import TableName
    from eventsourcing_sqlalchemy.tables import TableSpec

__all__ = ["find_missing", "make"]


def find_missing(datastore: SQLAlchemyDatastore, specs: Sequence[TableSpec]) -> list[TableSpec]:
    """Return the tables that do not exist; raises ProgrammingError for one of a shape that does not serve."""
    names = [spec.name for spec in specs]
    if datastore.scoped_session is None:
        return missing_tables(specs, _describe(datastore, names))
    # In the scoped session: another connection might be the same one underneath, and end its transaction.
    session = session_of(datastore.scoped_session)
    was_idle = not session.in_transaction()
    try:
        look = partial(datastore.dialect.describe, tables=names)
        return missing_tables(specs, datastore.run_in_session(session, look, str(names[0]), savepoint=False))
    finally:
        if was_idle:
            session.rollback()  # what looking began, and nobody else


def _describe(datastore: SQLAlchemyDatastore, names: Sequence[TableName]) -> dict[TableName, TableShape]:
    catalog, dialect = datastore.shared.catalog, datastore.dialect
    shapes = catalog.take(names)
    if shapes is not None:
        return shapes
    if catalog.is_worth_reading(names):
        every = datastore.run(dialect.describe_all, str(names[0]))
        catalog.fill(every)
        found = {name: every[name] for name in names if name in every}
        if len(found) == len(names):
            return found
    return datastore.run(partial(dialect.describe, tables=names), str(names[0]))


def make(datastore: SQLAlchemyDatastore, specs: Sequence[TableSpec]) -> None:
    """Make tables, and their schemas; raises ProgrammingError for a missing right."""
    if datastore.scoped_session is not None and not datastore.dialect.is_server:
        check_idle(datastore.scoped_session)

    def create(executor: Executor) -> list[TableSpec]:
        datastore.dialect.create(executor, specs, datastore.settings)
        # An index is not made where another one has its name: a table that was renamed keeps its own. Without it, an
        # event could be recorded twice.
        return missing_tables(specs, datastore.dialect.describe(executor, [spec.name for spec in specs]))

    datastore.run(create, str(specs[0].name))

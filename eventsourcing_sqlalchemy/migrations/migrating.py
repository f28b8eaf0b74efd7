"""Migrate tables to the head, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.migrations.locking import LOCK_TIMEOUT
from eventsourcing_sqlalchemy.migrations.postgresql import PostgreSQLSteps
from eventsourcing_sqlalchemy.migrations.sqlite import SQLiteSteps
from eventsourcing_sqlalchemy.migrations.steps import Steps
from eventsourcing_sqlalchemy.migrations.versions import version_of
from eventsourcing_sqlalchemy.tables import TableSpec, missing_tables

__all__ = ["migrate", "migrate_in"]

_STEPS: Final[Mapping[str, Steps]] = {"postgresql": PostgreSQLSteps(), "sqlite": SQLiteSteps()}


def migrate(
    datastore: SQLAlchemyDatastore, specs: Sequence[TableSpec], *, lock_timeout: float = LOCK_TIMEOUT
) -> Sequence[TableSpec]:
    """Migrate the existing ones of these tables to the head, all or none, and return those that were changed.

    Waits for each lock at most ``lock_timeout`` seconds, and raises OperationalError then: see
    :func:`retry_while_locked`. Raises ProgrammingError for a table that cannot be migrated, and for a missing right.
    """
    apart = datastore.without_scoped_session()
    dialect, settings, steps = apart.dialect, apart.settings, _STEPS[apart.dialect.name]

    def work(executor: Executor) -> Sequence[TableSpec]:
        # After an error the transaction is rolled back when the connection returns to the pool.
        steps.begin(executor, dialect, settings, lock_timeout)
        changed = migrate_in(executor, dialect, specs)
        executor.fetch("COMMIT")
        return changed

    try:
        look = partial(dialect.describe, tables=[spec.name for spec in specs])
        if version_of(specs, apart.run(look)) == len(steps.all):
            return []
        with apart.writing():
            return apart.run(work)
    finally:
        if apart is not datastore:
            apart.close()


def migrate_in(executor: Executor, dialect: Dialect, specs: Sequence[TableSpec]) -> Sequence[TableSpec]:
    """Do what :func:`migrate` does, in the transaction of an executor."""
    names = [spec.name for spec in specs]
    changed: dict[TableSpec, None] = {}
    # In key order, so that two processes that migrate the same tables do not wait for each other.
    ordered = sorted(specs, key=lambda spec: spec.name.key)
    for version, step in enumerate(_STEPS[dialect.name].all):
        shapes = dialect.describe(executor, names)
        for spec in ordered:
            if spec.name in shapes and version_of([spec], shapes) == version:
                for statement in step(executor, spec):
                    executor.fetch(statement, prepare=False)
                changed[spec] = None
    if changed:
        # A table without its unique index would accept an event twice.
        missing_tables(specs, dialect.describe(executor, names))
    return list(changed)

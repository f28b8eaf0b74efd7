"""Upgrade, downgrade and read one place with Alembic's own commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from eventsourcing_sqlalchemy.dialects import dialect_of
from tenancy.errors import TenancyError
from tenancy.migrations.environment import ATTRIBUTE
from tenancy.migrations.revisions import alembic_lock, explained

if TYPE_CHECKING:
    from tenancy.migrations.environment import MigrationRun
    from tenancy.migrations.revisions import RevisionDirectory

__all__ = ["HEADS", "current_revisions", "keep_open", "migrate", "set_locally", "write_sql"]

HEADS: Final = "heads"
"""The target of a migration to the newest revision of every branch."""
# A migration may compute for long between two statements. After this time, the server ends the transaction of a client
# that has vanished without closing its connection.
_LONG_IDLE: Final = "1h"


def set_locally(connection: sa.Connection, name: str, value: str) -> None:
    """Change a setting of a server until the transaction ends."""
    connection.execute(sa.select(sa.func.set_config(sa.literal(name), sa.literal(value), sa.true())))


def keep_open(connection: sa.Connection) -> None:
    """Let a transaction on a server be idle for long."""
    if dialect_of(connection.dialect).is_server:
        set_locally(connection, "idle_in_transaction_session_timeout", _LONG_IDLE)


def current_revisions(run: MigrationRun) -> tuple[str, ...]:
    """Return the revisions that the version table of a place has; empty before the first migration."""
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 (an extra)

    options = {"version_table": run.place.version_table, "version_table_schema": run.place.schema}
    with alembic_lock:
        return tuple(sorted(MigrationContext.configure(run.connection, opts=options).get_current_heads()))


def migrate(directory: RevisionDirectory, run: MigrationRun, target: str) -> tuple[str, ...]:
    """Migrate a place up or down to a revision, and return its revisions afterwards.

    It is migrated down if it has the target and more on that branch. The caller commits. Raises TenancyError for a
    place with revisions that the directory lacks, and what a revision raises.
    """
    from alembic import command  # noqa: PLC0415 (an extra)

    run.place.check()
    # Alembic's environment is global in the process.
    with alembic_lock, explained():
        current = current_revisions(run)
        applied = directory.applied(current)
        if applied is None:
            msg = "The tenant has a revision that this code lacks."
            raise TenancyError(
                msg, remedy="Run this command with the code that has migrated the tenant, or newer code."
            )
        if target != HEADS:
            target = target if target == "base" else directory.revision(target)
        if target == "base" or target in applied:
            if target in current or not current:
                return current
            command.downgrade(directory.config(**{ATTRIBUTE: run}), target)
        elif target == HEADS and applied.issuperset(directory.heads()):
            return current
        else:
            command.upgrade(directory.config(**{ATTRIBUTE: run}), target)
        return current_revisions(run)


def write_sql(directory: RevisionDirectory, run: MigrationRun, target: str) -> None:
    """Write the statements that upgrade a place from ``run.start`` to ``run.output``, and execute none."""
    from alembic import command  # noqa: PLC0415 (an extra)

    run.place.check()
    with alembic_lock, explained():
        command.upgrade(directory.config(**{ATTRIBUTE: run}), target, sql=True)

"""Migrate users' tables in a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TextIO

import sqlalchemy as sa
from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.errors import database_code, translate
from tenancy.errors import TenancyError
from tenancy.migrations.environment import OUTSIDE, MigrationRun
from tenancy.migrations.revisions import alembic_lock, revision_directory
from tenancy.migrations.running import HEADS, current_revisions, keep_open, migrate, set_locally, write_sql
from tenancy.storage.created_relations import CreatedRelations, place_of
from tenancy.storage.reference import ReferenceTenant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.migrations.revisions import RevisionDirectory
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.model.tenant import Tenant
    from tenancy.model.versions import Versions
    from tenancy.storage.shard import Shard

__all__ = ["Migrator"]


_NOT_IN_A_TRANSACTION: Final = "25001"  # active_sql_transaction


_NOT_LISTED: Final = """\
-- A purge of this adopted tenant drops only what is listed. List what these statements create, and the list itself:
-- CREATE TABLE IF NOT EXISTS {listed} (tenant_id TEXT NOT NULL, name TEXT NOT NULL);
-- INSERT INTO {listed} (tenant_id, name) VALUES ('{tenant_id}', 'NAME');

"""


class Migrator:
    """Runs the migrations of users' tables in one shard. Safe to use from many threads: one runs at a time."""

    def __init__(self, shard: Shard, application_specs: Callable[[], Sequence[ApplicationSpec]]) -> None:
        self._shard = shard
        self._application_specs = application_specs

    @property
    def is_configured(self) -> bool:
        """Whether the fleet has migrations."""
        return self._shard.settings.migrations is not None

    def heads(self) -> tuple[str, ...]:
        """Return the newest revisions; empty for a fleet without migrations."""
        return self.directory.heads() if self.is_configured else ()

    @property
    def directory(self) -> RevisionDirectory:
        """The revisions; raises TenancyError for a fleet without migrations."""
        path = self._shard.settings.migrations
        if path is None:
            msg = "The fleet has no migrations."
            raise TenancyError(
                msg, remedy='Name their directory: Tenancy(migrations="migrations"), or TENANCY_MIGRATIONS'
            )
        return revision_directory(path)

    def turn(self) -> AbstractContextManager[None]:
        """Return a context for a transaction that migrates: others of this process wait before they open theirs.

        Without it, waiting threads would hold the connections that the running migration needs.
        """
        return alembic_lock if self.is_configured else nullcontext()

    def migrate(
        self, tenant: Tenant, session: Session, target: str = HEADS, *, lock_timeout: float | None = None
    ) -> tuple[str, ...]:
        """Migrate a tenant up or down to a revision in one transaction, and return its revisions afterwards.

        ``session`` is the registry's: its transaction has locked the tenant. ``lock_timeout`` is in seconds: the
        longest wait for one lock; None means the shard's.

        Raises TenancyError for a tenant with unknown revisions, an error of the library when a statement fails, and
        what a revision raises.
        """
        with self._session(session, lock_timeout) as own:
            run = self._run(tenant, own.connection())
            # A tenant that was not adopted owns its whole placement.
            created = CreatedRelations(self._shard, tenant, run.place).recorded(own) if tenant.adopted else None
            with created or nullcontext():
                return migrate(self.directory, run, target)

    def start(self, tenant: Tenant, session: Session, head: Versions) -> Versions:
        """Migrate a new tenant, whose other tables were just created at ``head``, and return its versions.

        The tables of an adopted tenant exist: its revisions are only read.
        """
        versions = tenant.versions if tenant.adopted else tenant.versions.created_by(head)
        if not self.is_configured:
            return versions
        return replace(
            versions,
            migrations=self.current(tenant, session) if tenant.adopted else self.migrate(tenant, session),
        )

    def current(self, tenant: Tenant, session: Session) -> tuple[str, ...]:
        """Return the revisions in a tenant's version table, which is the truth."""
        with self._session(session, None) as own:
            return current_revisions(self._run(tenant, own.connection()))

    def write_sql(self, tenant: Tenant, output: TextIO, target: str = HEADS) -> None:
        """Write the statements that would upgrade a tenant from its recorded revisions; execute none.

        For an adopted tenant, a comment says how a purge gets to know what the statements create.
        """
        run = self._run(tenant, None, output=output, start=tenant.versions.migrations)
        if tenant.adopted:
            listed = CreatedRelations(self._shard, tenant, run.place).name
            output.write(_NOT_LISTED.format(listed=listed, tenant_id=tenant.id))
        write_sql(self.directory, run, target)

    def reference(self) -> ReferenceTenant:
        """Return what builds a tenant to compare others with; raises TenancyError for a fleet without migrations."""
        return ReferenceTenant(self._shard, self.directory, self._application_specs())

    def _run(
        self,
        tenant: Tenant,
        connection: sa.Connection | None,
        *,
        output: TextIO | None = None,
        start: tuple[str, ...] = (),
    ) -> MigrationRun:
        datastore = self._shard.datastore
        return MigrationRun(
            place=place_of(self._shard, tenant, self._application_specs()),
            dialect=datastore.engine.dialect,
            connection=connection,
            output=output,
            start=start,
            has_schemas=datastore.dialect.has_schemas,
        )

    @contextmanager
    def _session(self, registry: Session, lock_timeout: float | None) -> Iterator[Session]:
        """Yield a session whose transaction commits at the end of the block."""
        try:
            if self._shard.is_file_of_registry:
                # One SQLite file has one writer: the registry's transaction.
                yield registry
                return
            keep_open(registry.connection())  # idle meanwhile
            with self._shard.datastore.transaction() as own:
                connection = own.connection()
                keep_open(connection)
                if lock_timeout is not None and self._shard.datastore.dialect.is_server:
                    set_locally(connection, "lock_timeout", f"{int(lock_timeout * 1000)}ms")
                yield own
        except (sa.exc.SQLAlchemyError, PersistenceError) as error:
            if database_code(error) == _NOT_IN_A_TRANSACTION:
                msg = "A revision has a statement that cannot run in a transaction, such as CREATE INDEX CONCURRENTLY."
                raise TenancyError(msg, remedy=OUTSIDE) from error
            if isinstance(error, PersistenceError):
                raise
            raise translate(error) from error

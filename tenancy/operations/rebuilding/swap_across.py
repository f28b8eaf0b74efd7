"""Replace the serving view over all tenants with its shadow, in one short transaction."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from eventsourcing_sqlalchemy.naming import TableName, is_extended
from eventsourcing_sqlalchemy.transactions import inside
from tenancy.errors import TenancyError
from tenancy.operations.rebuilding.across import FILLABLE, REBUILD, CrossTenantShadow, has_replaced
from tenancy.operations.rebuilding.attempts import LAST, LOCK_TIMEOUT, NotCaughtUpError, replace_in_attempts
from tenancy.storage.open_view import CLOSED

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.dialects.protocols import Executor
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant
    from tenancy.storage.cross_tenant import CrossTenantProjection

__all__ = ["check_dependents", "finish_rebuild"]


def check_dependents(projection: CrossTenantProjection) -> None:
    """Raise TenancyError if objects outside of the serving view depend on it."""
    tables = _Tables(projection)
    tables.refuse(projection.view.datastore.run(tables.dependents))


def finish_rebuild(
    fleet: Fleet, projection: CrossTenantProjection, number: int, check: Callable[[], None] = lambda: None
) -> None:
    """Bring the new tables of a rebuild up to date, let them replace the serving ones, and record the version.

    Idempotent, and safe in many processes at once; ``check`` is called between steps. Raises TenancyError when the new
    tables are not this rebuild's, when the projection fails, when an object outside of the view depends on it, or when
    the view stays in use for two minutes.
    """
    if not has_replaced(projection, number):
        try:
            with CrossTenantShadow(fleet, projection, number) as shadow:
                shadow.require_tables()
                _Swap(fleet, projection, shadow).run(check)
        except Exception:
            # Another process may have done so meanwhile.
            if not has_replaced(projection, number):
                raise
    fleet.cross_tenant.record_version(projection)


class _Behind(NamedTuple):
    """An application of a tenant of which the serving view has more than the new tables."""

    tenant: Tenant
    leader: str
    serving: int
    shadow: int


class _Tables:
    """The serving view's tables and other objects."""

    def __init__(self, projection: CrossTenantProjection) -> None:
        self._projection = projection
        self._dialect = projection.view.datastore.dialect
        self._schema = projection.schema

    def names(self, executor: Executor) -> Sequence[str]:
        """Return the names of the objects that have a successor, and of those that are the projection's."""
        tracking = self._projection.tracking_table.name
        limit = self._dialect.identifier_limit
        owned = [
            name.name
            for _, name in self._relations(executor)
            if name.name == tracking or is_extended(name.name, f"{tracking}_", limit)
        ]
        new = self._projection.replacer.names_in(executor, self._projection.shadow_space)
        return list(dict.fromkeys([*new, *owned]))

    def lock(self, executor: Executor, *, reads: bool) -> None:
        """Lock the tables against writing, or with ``reads`` also against reading, until the transaction ends."""
        names = set(self.names(executor))
        tables = [name for kind, name in self._relations(executor) if kind == "table" and name.name in names]
        # As in the replacement of a tenant's view: no order suits all queries.
        random.shuffle(tables)
        tables.sort(key=lambda table: table.name.endswith("_tracking"))
        self._projection.replacer.lock(executor, tables, LOCK_TIMEOUT, reads=reads)

    def replace(self, executor: Executor) -> None:
        """Move the new tables to the place of the serving ones, and drop those."""
        replacer, replaced = self._projection.replacer, self._projection.replaced_space
        names, space = self.names(executor), self._projection.shadow_space
        replacer.replace(executor, self._schema, names, by=space, to=replaced, is_default=False)
        replacer.drop(executor, replaced)

    def dependents(self, executor: Executor) -> Sequence[str]:
        """Return descriptions of objects outside of the view that depend on it."""
        return self._projection.replacer.dependents(executor, self._schema, self.names(executor))

    def refuse(self, dependents: Sequence[str]) -> None:
        """Raise TenancyError if there are any."""
        if dependents:
            msg = (
                f"The view of projection {self._projection.name!r} over all tenants cannot be replaced, because its "
                f"tables are used by: {', '.join(dependents)}."
            )
            raise TenancyError(msg, remedy="Drop it, rebuild, and create it again on the new tables.")

    def _relations(self, executor: Executor) -> list[tuple[str, TableName]]:
        found = self._dialect.relations(executor, self._schema, self._projection.prefix)
        return [(kind, TableName(self._schema, name)) for kind, name in found]


class _Swap:
    """The replacement of the serving view by the new tables of one rebuild."""

    def __init__(self, fleet: Fleet, projection: CrossTenantProjection, shadow: CrossTenantShadow) -> None:
        self._fleet = fleet
        self._projection = projection
        self._shadow = shadow
        self._datastore = projection.view.datastore
        self._tables = _Tables(projection)

    def run(self, check: Callable[[], None]) -> None:
        what = f"The view of projection {self._projection.name!r} over all tenants"
        replace_in_attempts(lambda: self._catch_up(check), self._attempt, check, what)

    def _catch_up(self, check: Callable[[], None]) -> None:
        """Process what the serving view has and the new tables lack, for each tenant up to its last event."""
        with self._datastore.transaction() as session:
            self._shadow.require(session)
            self._close(session)
            behind = self._behind(session)
        for each in behind:
            with ExitStack() as resources:
                self._shadow.view.open(each.tenant, each.leader)
                self._shadow.filler(each.tenant, each.leader, resources).catch_up(check)

    def _attempt(self) -> None:
        with self._datastore.transaction() as session:
            self._run(session, partial(self._tables.lock, reads=False))
            # Only the runners wait: no position changes, and no purge begins to remove rows.
            self._shadow.require(session)
            self._close(session)
            behind = self._behind(session)
            if (remaining := sum(each.serving - each.shadow for each in behind)) > LAST:
                msg = f"{remaining} notifications were added"
                raise NotCaughtUpError(msg)
            for each in behind:
                with ExitStack() as resources, inside(self._shadow.view.view.datastore, session):
                    filler = self._shadow.filler(each.tenant, each.leader, resources)
                    try:
                        self._shadow.view.open(each.tenant, each.leader)
                        filler.catch_up(lambda: None, each.serving)
                    except TenancyError as error:
                        # If it was not an error that a view catches, it recurs outside of this transaction.
                        raise NotCaughtUpError(error.message) from error
            self._run(session, partial(self._tables.lock, reads=True))
            self._tables.refuse(self._run(session, self._tables.dependents))
            self._run(session, self._tables.replace)

    def _run(self, session: Session, work: Callable[[Executor], Any]) -> Any:
        return self._datastore.run_in_session(session, work, savepoint=False)

    def _close(self, session: Session) -> None:
        """Close the positions of the tenants that the serving view has closed."""
        new, old = self._shadow.view.view.tracking_table, self._projection.view.tracking_table
        closed = sa.select(old.c.application_name).where(old.c.notification_id == CLOSED)
        is_open = sa.and_(new.c.application_name.in_(closed), new.c.notification_id < CLOSED)
        session.execute(sa.update(new).where(is_open).values(notification_id=CLOSED))
        known = sa.select(new.c.application_name)
        missing = sa.select(old.c.application_name, sa.literal(CLOSED)).where(
            old.c.notification_id == CLOSED, old.c.application_name.not_in(known)
        )
        session.execute(sa.insert(new).from_select(["application_name", "notification_id"], missing))

    def _behind(self, session: Session) -> list[_Behind]:
        """Return the applications of existing tenants of which the serving view has more than the new tables."""
        new, old = self._shadow.view.view.tracking_table, self._projection.view.tracking_table
        reached = sa.func.coalesce(new.c.notification_id, 0)
        query = (
            sa.select(old.c.application_name, old.c.notification_id, reached)
            .join(new, new.c.application_name == old.c.application_name, isouter=True)
            .where(old.c.application_name != REBUILD, old.c.notification_id > reached)
        )
        found = []
        for key, serving, shadow in session.execute(query):
            tenant_id, _, leader = key.partition(":")
            if leader in self._projection.applications:
                found.append((UUID(tenant_id), leader, serving, shadow))
        tenants = self._fleet.registry.get_many([each[0] for each in found])
        return [
            _Behind(tenant, leader, serving, shadow)
            for tenant_id, leader, serving, shadow in found
            if (tenant := tenants.get(tenant_id)) is not None and tenant.status in FILLABLE
        ]

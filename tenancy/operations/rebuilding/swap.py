"""Replace a tenant's serving view with its shadow, in one short transaction."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from eventsourcing_sqlalchemy.naming import TableName
from tenancy.errors import TenancyError
from tenancy.isolation.spaces import space_of
from tenancy.model.tenant import Action, Tenant
from tenancy.operations.rebuilding.attempts import LAST, LOCK_TIMEOUT, NotCaughtUpError, replace_in_attempts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.dialects.protocols import Executor
    from tenancy.fleet import Fleet
    from tenancy.model.projections import RegisteredProjection
    from tenancy.operations.rebuilding.shadow import Shadow

__all__ = ["Swap"]


class Swap:
    """The replacement of one tenant's view."""

    def __init__(
        self, fleet: Fleet, registered: RegisteredProjection, tenant: Tenant, require: Callable[[Tenant | None], None]
    ) -> None:
        self._fleet = fleet
        self._registered = registered
        self._tenant = tenant
        self._require = require
        self._name = registered.projection.name
        self._replacer = fleet.shard.datastore.dialect.table_replacer
        self._space = space_of("rebuild", tenant.id, self._name)
        self._schema = tenant.placement.schema_of(self._name) or fleet.shard.default_schema

    def check_dependents(self) -> None:
        """Raise TenancyError if objects outside of the view depend on it."""
        self._refuse(self._fleet.shard.datastore.run(self._dependents))

    def _dependents(self, executor: Executor) -> Sequence[str]:
        return self._replacer.dependents(executor, self._schema, self._names(executor))

    def _refuse(self, dependents: Sequence[str]) -> None:
        if dependents:
            msg = (
                f"The view of projection {self._name!r} of tenant {self._tenant.slug!r} cannot be replaced, because "
                f"its tables are used by: {', '.join(dependents)}."
            )
            remedy = "Drop it, rebuild, and create it again on the new tables."
            raise TenancyError(msg, remedy=remedy, tenant=self._tenant.slug)

    def run(self, shadow: Shadow, check: Callable[[], None], actor: str | None) -> None:
        """Replace the view, and record its version; ``check`` is called between attempts.

        Raises TenancyError when that is impossible for two minutes, because other transactions use the view, or because
        notifications are added faster than they can be processed.
        """
        what = f"The view of projection {self._name!r} of tenant {self._tenant.slug!r}"
        replace_in_attempts(lambda: shadow.catch_up(check), lambda: self._attempt(shadow, actor), check, what)

    def _attempt(self, shadow: Shadow, actor: str | None) -> None:
        with self._fleet.registry.locked(self._tenant.id) as (registry_session, tenants):
            current = next(iter(tenants), None)
            self._require(current)
            assert current is not None
            with self._session(registry_session) as session:
                self._replace(session, shadow)
            self._record(registry_session, current, actor)

    @contextmanager
    def _session(self, registry_session: Session) -> Iterator[Session]:
        # A SQLite file has one writer. There, the registry changes in the same transaction.
        if self._fleet.shard.is_file_of_registry:
            yield registry_session
        else:
            with self._fleet.shard.datastore.transaction() as session:
                yield session

    def _replace(self, session: Session, shadow: Shadow) -> None:
        datastore = self._fleet.shard.datastore

        def lock(executor: Executor, *, reads: bool) -> None:
            tables = self._tables(executor)
            if tables:
                self._replacer.lock(executor, tables, LOCK_TIMEOUT, reads=reads)

        def move(executor: Executor) -> None:
            to = space_of("replaced", self._tenant.id, self._name)
            self._replacer.drop(executor, to)
            self._replacer.replace(
                executor,
                self._schema,
                self._names(executor),
                by=self._space,
                to=to,
                is_default=self._tenant.placement.schema is None,
            )

        datastore.run_in_session(session, partial(lock, reads=False), savepoint=False)
        with shadow.joining(session):
            # Only the runner waits: the position cannot change.
            remaining, last_id = shadow.remaining()
            if remaining > LAST:
                msg = f"{remaining} notifications were added"
                raise NotCaughtUpError(msg)
            try:
                shadow.catch_up(lambda: None, last_id)
            except TenancyError as error:
                # If it was not an error that a view catches, it recurs outside of this transaction.
                raise NotCaughtUpError(error.message) from error
        datastore.run_in_session(session, partial(lock, reads=True), savepoint=False)
        self._refuse(datastore.run_in_session(session, self._dependents, savepoint=False))
        datastore.run_in_session(session, move, savepoint=False)

    def _names(self, executor: Executor) -> Sequence[str]:
        """Return the names of the serving view's objects: those that have a successor, and those of its projection."""
        placement, shard = self._tenant.placement, self._fleet.shard
        spec = next(each for each in self._fleet.application_specs() if each.application == self._name)
        owned = [
            name.name
            for _, name in self._relations(executor)
            if spec.owns(placement, shard.default_schema, name, shard.identifier_limit)
        ]
        return list(dict.fromkeys([*self._replacer.names_in(executor, self._space), *owned]))

    def _tables(self, executor: Executor) -> list[TableName]:
        """Return the serving tables in the order to lock them."""
        names = set(self._names(executor))
        tables = [name for kind, name in self._relations(executor) if kind == "table" and name.name in names]
        # A query that locks the same tables in another order can block this transaction, and be blocked by it. There is
        # no order that suits all queries, so each attempt tries another one. Projections write their positions last.
        random.shuffle(tables)
        return sorted(tables, key=lambda table: table.name.endswith("_tracking"))

    def _relations(self, executor: Executor) -> list[tuple[str, TableName]]:
        prefix = self._tenant.placement.prefix_of(self._name)
        relations = self._fleet.shard.datastore.dialect.relations(executor, self._schema, prefix)
        return [(kind, TableName(self._schema, name)) for kind, name in relations]

    def record(self, actor: str | None) -> None:
        """Record the version, for a process that died after the replacement."""
        with self._fleet.registry.locked(self._tenant.id) as (session, tenants):
            for current in tenants:
                self._record(session, current, actor)

    def _record(self, session: Session, current: Tenant, actor: str | None) -> None:
        views = {name: version for name, version in current.versions.views.items() if name != self._name}
        if self._registered.version is not None:
            views[self._name] = self._registered.version
        versions = replace(current.versions, views=views)
        self._fleet.registry.change(session, [current], Action.REBUILD, actor, remark=self._name, versions=versions)

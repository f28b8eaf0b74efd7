"""Rebuild a view over all tenants beside the serving one, and replace that once every tenant is in it.

The new tables belong to one rebuild, whose number is a row of their table of positions, beside those of the tenants. It
moves with the table: after the replacement, it says that this rebuild is done.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, PersistenceError

from tenancy.errors import TenancyError
from tenancy.following.follower import CrossTenantDriver
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.operations.jobs import ItemSkipped
from tenancy.operations.rebuilding.filling import NOTIFICATIONS, Filler, open_leader
from tenancy.storage.open_view import CLOSED

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.dialects.protocols import Executor
    from tenancy.fleet import Fleet
    from tenancy.storage.cross_tenant import CrossTenantProjection
    from tenancy.storage.open_view import OpenView

__all__ = ["FILLABLE", "REBUILD", "CrossTenantShadow", "begin_rebuild", "has_replaced", "new_rebuild"]

FILLABLE: Final = (TenantStatus.ACTIVE, TenantStatus.SUSPENDED, TenantStatus.ARCHIVED, TenantStatus.DELETED)
"""The statuses of tenants whose events a rebuilt view contains: all whose rows the serving one has."""

REBUILD: Final = "rebuild"
"""The name under which the number of a rebuild is recorded. Names of positions contain a colon."""


def new_rebuild() -> int:
    """Return a number for a rebuild."""
    return secrets.randbelow(CLOSED - 1) + 1


def begin_rebuild(projection: CrossTenantProjection, number: int) -> None:
    """Create the new tables of a rebuild, and drop those of an earlier one that was not finished.

    Raises TenancyError when another rebuild begins at the same time.
    """
    projection.create_tables()
    replacer, space = projection.replacer, projection.shadow_space
    datastore = projection.view.datastore
    with datastore.transaction() as session:
        datastore.run_in_session(session, lambda executor: replacer.drop(executor, space), savepoint=False)
    shadow = projection.open_shadow()
    try:
        shadow.view.create_table()
        table = shadow.view.tracking_table
        try:
            with shadow.view.transaction() as session:
                session.execute(sa.insert(table).values(application_name=REBUILD, notification_id=number))
        except IntegrityError as error:
            msg = f"Another rebuild of the view of projection {projection.name!r} has just begun."
            raise TenancyError(msg, remedy="See: tenancy jobs list") from error
    finally:
        shadow.close()


def has_replaced(projection: CrossTenantProjection, number: int) -> bool:
    """Return whether a rebuild has replaced the view, and none has done so since."""
    view = projection.view
    with view.transaction(commit=False) as session:
        return _number(session, projection.unchecked()) == number


def _number(session: Session, view: OpenView) -> int | None:
    table = view.view.tracking_table
    query = sa.select(table.c.notification_id).where(table.c.application_name == REBUILD)
    number: int | None = session.scalar(query)
    return number


class CrossTenantShadow:
    """The new tables of one rebuild. Used by one thread; use it in a ``with`` statement."""

    def __init__(self, fleet: Fleet, projection: CrossTenantProjection, number: int) -> None:
        self._fleet = fleet
        self._projection = projection
        self._rebuild = number
        self._resources = ExitStack()
        self.view = projection.open_shadow()
        """The view on the new tables."""
        self._resources.callback(self.view.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()

    def exists(self) -> bool:
        """Return whether there are new tables, and they belong to this rebuild."""
        datastore, space = self.view.view.datastore, self._projection.shadow_space

        def names(executor: Executor) -> list[str]:
            return self._projection.replacer.names_in(executor, space)

        if not datastore.run(names):
            return False
        try:
            with self.view.view.transaction(commit=False) as session:
                return _number(session, self.view) == self._rebuild
        except PersistenceError:
            if datastore.run(names):
                raise
            return False

    def require(self, session: Session) -> None:
        """Raise TenancyError unless the new tables belong to this rebuild; then they do until the transaction ends."""
        if _number(session, self.view) != self._rebuild:
            raise self._lost()

    def require_tables(self) -> None:
        """Raise TenancyError unless there are new tables that belong to this rebuild."""
        if not self.exists():
            raise self._lost()

    def _lost(self) -> TenancyError:
        name = self._projection.name
        msg = f"The new tables for the view of projection {name!r} were dropped, or belong to a later rebuild."
        return TenancyError(msg, remedy=f"If no other rebuild is running, begin again: tenancy rebuild {name}")

    def fill(self, tenant: Tenant, check: Callable[[], None]) -> int:
        """Process a tenant's notifications that the new tables do not have yet; return how many.

        Raises ItemSkipped for a tenant that is purged, or being purged, and TenancyError when the projection fails or
        the new tables are not this rebuild's any more.
        """
        processed = 0
        for leader in self._projection.applications:
            with ExitStack() as resources:
                if self.is_lacking(tenant, leader):
                    continue
                filler = self.filler(tenant, leader, resources)
                self.view.open(tenant, leader)
                # Only now: a purge that closes the position must come after the tenant's status was read.
                self._require_tenant(tenant)
                try:
                    filler.catch_up(check)
                except PersistenceError:
                    # A purge meanwhile has closed the position.
                    self._require_tenant(tenant)
                    raise
                except TenancyError:
                    self._require_tenant(tenant)
                    raise
                processed += filler.processed
        return processed

    def is_lacking(self, tenant: Tenant, leader: str) -> bool:
        """Return whether the tables of a tenant's application are still to be created, so that it has no events."""
        spec = next(each for each in self._fleet.application_specs() if each.application == leader)
        return bool(tenant.versions.created) and bool(tenant.versions.lacks(spec.table_names()))

    def filler(self, tenant: Tenant, leader: str, resources: ExitStack) -> Filler:
        """Return what fills the new tables with the events of a tenant's application, which ``resources`` closes."""
        application = open_leader(self._fleet, self._projection.applications[leader], tenant, resources)
        driver = CrossTenantDriver(application, self.view, tenant, NOTIFICATIONS)
        what = f"Projection {self._projection.name!r} over all tenants"
        return Filler(driver, self.view.view, tenant, what, self.require)

    def _require_tenant(self, tenant: Tenant) -> None:
        current = self._fleet.registry.get(tenant.id)
        status = "purged" if current is None else current.status
        if status not in FILLABLE:
            msg = f"the tenant is {status}"
            raise ItemSkipped(msg)

"""A view over all tenants at one place, with the projection that updates it and the positions of the tenants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.persistence import InfrastructureFactory, IntegrityError, ProgrammingError, Tracking
from eventsourcing.projection import Projection
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy import provisioning
from eventsourcing_sqlalchemy.recorders import ConditionalTracking, SQLAlchemyTrackingRecorder

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.naming import TableName
    from tenancy.model.tenant import Tenant

__all__ = ["CLOSED", "CrossTenantView", "OpenView", "TenantTracking", "position_key"]

CLOSED: Final = 2**63 - 1
"""The recorded position of a purged tenant. No event can be projected after it."""
_POSITIONS_AT_ONCE: Final = 500


@dataclass(frozen=True)
class TenantTracking(ConditionalTracking):
    """The position of an event in its tenant's application, with the tenant."""

    tenant: Tenant


class CrossTenantView(Protocol):
    """What the view of a projection over all tenants has beside the methods of its base SQLAlchemyTrackingRecorder."""

    def forget(self, tenant: Tenant) -> None:
        """Delete a tenant's rows, as a part of its purge; called in an open transaction of the view."""


class OpenView:
    """A view with its projection. Safe to use from many threads.

    ``environment`` says where its tables are. The constructor neither creates them nor connects, unless the view's own
    constructor does.
    """

    def __init__(
        self,
        projection: type[Projection[Any]],
        view: type[SQLAlchemyTrackingRecorder],
        environment: Mapping[str, str],
    ) -> None:
        never = {"CREATE_TABLE": "no", f"{projection.name.upper()}_CREATE_TABLE": "no"}
        factory: InfrastructureFactory[Any] = InfrastructureFactory.construct(
            Environment(projection.name, {**environment, **never})
        )
        try:
            self.view = cast("SQLAlchemyTrackingRecorder", factory.tracking_recorder(view))
            self.projection = projection(self.view)
        except BaseException:
            factory.close()
            raise
        self._factory = factory

    def close(self) -> None:
        """Release the engine; idempotent."""
        self._factory.close()

    @property
    def tracking_table(self) -> TableName:
        """The table of the positions."""
        return next(spec.name for spec in self.view.tables if spec.kind == "tracking")

    def has_tables(self) -> bool:
        """Return whether the table of the positions exists; raises ProgrammingError for one of another shape."""
        return not provisioning.find_missing(self.view.datastore, self.view.tables)

    # -- positions --

    def positions(self, leader: str, tenant_ids: Collection[UUID]) -> dict[UUID, int]:
        """Return the recorded positions of these tenants behind an application; a tenant without one is absent."""
        ids = {position_key(tenant_id, leader): tenant_id for tenant_id in tenant_ids}
        try:
            found = self._positions(list(ids))
        except ProgrammingError:
            if not self.has_tables():
                return {}
            found = self._positions(list(ids))  # they have just been created
        return {ids[key]: position for key, position in found}

    def _positions(self, keys: Sequence[str]) -> list[tuple[str, int]]:
        starts = range(0, len(keys), _POSITIONS_AT_ONCE)
        return [row for start in starts for row in self._some_positions(keys[start : start + _POSITIONS_AT_ONCE])]

    def _some_positions(self, keys: Sequence[str]) -> list[tuple[str, int]]:
        table = self.view.tracking_table
        with self.view.transaction(commit=False) as session:
            rows = session.execute(sa.select(table).where(table.c.application_name.in_(keys)))
            return [(row.application_name, row.notification_id) for row in rows]

    def position(self, tenant: Tenant, leader: str) -> int | None:
        """Return a tenant's recorded position behind an application, or None."""
        return self.view.max_tracking_id(position_key(tenant.id, leader))

    def open(self, tenant: Tenant, leader: str) -> None:
        """Record position 0 for a tenant that has none. From then on, a position that was set back is noticed."""
        try:
            self.view.insert_tracking(Tracking(position_key(tenant.id, leader), 0))
        except IntegrityError:
            return  # another process has done so

    def tracking(self, tenant: Tenant, leader: str, notification_id: int, recorded: int) -> TenantTracking:
        """Return a position to record, if the recorded one is still between ``recorded`` and it."""
        return TenantTracking(position_key(tenant.id, leader), notification_id, recorded, tenant)

    def forget(self, session: Session, tenant: Tenant, leaders: Collection[str]) -> None:
        """Close a tenant's positions behind these applications, and all recorded ones, and delete its rows.

        ``session`` has an open transaction of the view. The positions are closed first: a process that is projecting
        one of the tenant's events commits before that, or fails.
        """
        name = self.view.tracking_table.c.application_name
        # Also those of applications that only processes with other code follow.
        recorded = session.scalars(sa.select(name).where(name.startswith(position_key(tenant.id, "")))).all()
        for key in sorted({*recorded, *(position_key(tenant.id, leader) for leader in leaders)}):
            with suppress(IntegrityError):  # an earlier purge, which was interrupted, has closed it
                self.view._insert_tracking(session, Tracking(key, CLOSED))  # noqa: SLF001 (the hook for views)
        cast("CrossTenantView", self.view).forget(tenant)


def position_key(tenant_id: UUID, leader: str) -> str:
    """Return the name under which the position of a tenant's application is recorded."""
    return f"{tenant_id}:{leader}"

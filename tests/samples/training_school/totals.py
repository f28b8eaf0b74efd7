"""A projection over all tenants, whose view counts each tenant's dogs and tricks."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenant, TenantTracking
from tests.samples.training_school.application import Dog


class Totals(SQLAlchemyTrackingRecorder):
    """One row per tenant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.totals = self.own_table(
            "totals",
            sa.Column("tenant_id", sa.Uuid, primary_key=True),
            sa.Column("dogs", sa.Integer, nullable=False),
            sa.Column("tricks", sa.Integer, nullable=False),
        )

    def create_table(self) -> None:
        super().create_table()
        self.totals.create(self.datastore.engine, checkfirst=True)

    def add(self, tracking: TenantTracking, *, dogs: int = 0, tricks: int = 0) -> None:
        """Add to a tenant's totals."""
        table, tenant_id = self.totals, tracking.tenant.id
        with self.transaction() as session:
            self._insert_tracking(session, tracking)
            this = table.c.tenant_id == tenant_id
            sums = {"dogs": table.c.dogs + dogs, "tricks": table.c.tricks + tricks}
            changed: Any = session.execute(sa.update(table).where(this).values(sums))
            if not changed.rowcount:
                session.execute(sa.insert(table).values(tenant_id=tenant_id, dogs=dogs, tricks=tricks))

    def forget(self, tenant: Tenant) -> None:
        """Delete a purged tenant's row."""
        with self.transaction() as session:
            session.execute(sa.delete(self.totals).where(self.totals.c.tenant_id == tenant.id))

    def all(self) -> dict[UUID, tuple[int, int]]:
        """Return the dogs and tricks of each tenant."""
        with self.transaction(commit=False) as session:
            rows = session.execute(sa.select(self.totals))
            return {row.tenant_id: (row.dogs, row.tricks) for row in rows}


class CountAll(Projection[Totals]):
    """Counts the dogs and tricks of all tenants."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Ignore other events."""

    @process_event.register
    def _(self, domain_event: Dog.Registered, tracking: TenantTracking) -> None:
        self.view.add(tracking, dogs=1)

    @process_event.register
    def _(self, domain_event: Dog.TrickAdded, tracking: TenantTracking) -> None:
        if domain_event.trick == "poison":
            raise ValueError(domain_event.trick)
        self.view.add(tracking, tricks=1)

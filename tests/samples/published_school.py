"""A following application whose tables may be those of the published package, and what may be added to its fleet."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import Tracking
from eventsourcing.projection import Projection
from eventsourcing.system import ProcessApplication

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenancy


class School(ProcessApplication[UUID]):
    """Records what happens in a school; it follows nothing in these fleets."""

    is_snapshotting_enabled = True

    def policy(self, domain_event: Any, processing_event: ProcessingEvent[UUID]) -> None:
        """Record nothing."""

    def enrol(self) -> None:
        """Record an event."""
        self.save(Aggregate())


class Library(Application[UUID]):
    """An application that comes later."""


class CountsView(SQLAlchemyTrackingRecorder):
    """Counts events in a table of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counts = self.own_table("counts", sa.Column("number", sa.Integer))

    def create_table(self) -> None:
        super().create_table()
        with self.transaction() as session:
            self.counts.metadata.create_all(session.connection())

    def count(self, tracking: Tracking) -> None:
        """Count an event."""
        with self.transaction() as session:
            self._insert_tracking(session, tracking)
            session.execute(sa.insert(self.counts).values(number=1))

    def total(self) -> int:
        """Return the number of events."""
        with self.transaction(commit=False) as session:
            return session.scalar(sa.select(sa.func.count()).select_from(self.counts)) or 0


class Counts(Projection[CountsView]):
    """A projection that comes later."""

    name = "counts"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Count the event."""
        self.view.count(tracking)


def tenants() -> Tenancy:
    """Return the fleet."""
    return Tenancy(applications=[School])


def later() -> Tenancy:
    """Return the fleet with what was added."""
    fleet = Tenancy(applications=[School, Library])
    fleet.project(School, Counts, CountsView)
    return fleet

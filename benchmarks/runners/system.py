"""Each tenant's applications: a source, and two followers in a row that record an event per event.

Imports the library only.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.system import MultiThreadedRunner, NewMultiThreadedRunner, ProcessApplication, System

LIBRARY: Final[dict[str, Any]] = {
    "MultiThreadedRunner": MultiThreadedRunner,
    "NewMultiThreadedRunner": NewMultiThreadedRunner,
}


class Source(Application[UUID]):
    """The source of events."""

    def write(self, count: int = 1) -> None:
        """Record `count` events in one call."""
        self.save(*[Aggregate() for _ in range(count)])


class Copies(ProcessApplication[UUID]):
    """Records an event per event."""

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Record one event."""
        processing_event.collect_events(Aggregate())


class Totals(ProcessApplication[UUID]):
    """Records an event per event of the copies."""

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Record one event."""
        processing_event.collect_events(Aggregate())


SYSTEM = System(pipes=[[Source, Copies, Totals]])
EVENTS_PER_EVENT = len(SYSTEM.nodes) - 1
"""Followed events per written event."""

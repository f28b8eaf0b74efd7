"""What every tenant has: an application that is written to, one that makes an event of each of its events, and one that
does so with those. It needs the library alone.
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
    """Is written to."""

    def write(self, count: int = 1) -> None:
        """Record some events at once."""
        self.save(*[Aggregate() for _ in range(count)])


class Copies(ProcessApplication[UUID]):
    """Makes an event of each event."""

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Make one."""
        processing_event.collect_events(Aggregate())


class Totals(ProcessApplication[UUID]):
    """Makes an event of each event of the copies."""

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Make one."""
        processing_event.collect_events(Aggregate())


SYSTEM = System(pipes=[[Source, Copies, Totals]])
EVENTS_PER_EVENT = len(SYSTEM.nodes) - 1
"""How many events are followed for each one that is written."""

"""The application of the fleets in these tests."""

from __future__ import annotations

from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate


class Shop(Application[UUID]):
    """An application with one thing to do."""

    def open(self) -> int:
        """Record an event; return how many there are."""
        self.save(Aggregate())
        return self.recorder.max_notification_id() or 0

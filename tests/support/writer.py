"""Write for the duration of a test, whatever happens to the server."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

from eventsourcing.persistence import OperationalError, Tracking

from eventsourcing_sqlalchemy.errors import ConnectionLostError
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import stored_events


class Writer:
    """Appends single events and batches until the test is over, half of them with tracking."""

    def __init__(self, name: str, recorder: SQLAlchemyProcessRecorder) -> None:
        self.name = name
        self.recorder = recorder
        self.acknowledged: dict[int, UUID | str] = {}
        self.unknown: set[UUID | str] = set()
        self.is_done = threading.Event()

    def run(self, is_over: threading.Event) -> None:
        """Write with one recorder throughout."""
        calls = 0
        try:
            while not is_over.is_set():
                calls += 1
                events = stored_events(1 + calls % 3)
                tracking: Any = {"tracking": Tracking(self.name, calls)} if calls % 2 else {}
                try:
                    ids = self.recorder.insert_events(events, **tracking)
                except ConnectionLostError:
                    self.unknown.add(events[0].originator_id)
                except OperationalError:
                    continue  # not recorded
                else:
                    assert ids is not None
                    self.acknowledged.update(dict.fromkeys(ids, events[0].originator_id))
        finally:
            is_over.set()
            self.is_done.set()

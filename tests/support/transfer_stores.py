"""Stores with events, snapshots and positions to archive and copy, on every database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid5

from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder, SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.transfer import ApplicationTables

__all__ = ["Store", "store", "uuid_of"]


def uuid_of(number: int) -> UUID:
    """Return the originator id with a number."""
    return uuid5(UUID(int=0), str(number))


class Store:
    """The tables of one application."""

    def __init__(self, factory: SQLAlchemyFactory, *, text_ids: bool) -> None:
        self.factory = factory
        self.text_ids = text_ids
        recorder, snapshots = factory.process_recorder(), factory.aggregate_recorder("snapshots")
        assert isinstance(recorder, SQLAlchemyProcessRecorder)
        assert isinstance(snapshots, SQLAlchemyAggregateRecorder)
        self.recorder, self.snapshots = recorder, snapshots
        specs = (*recorder.tables, *snapshots.tables)
        self.tables = ApplicationTables("Kennels", tuple(dict.fromkeys(specs)))

    @property
    def datastore(self) -> Any:
        return self.factory.datastore

    def originator_id(self, number: int) -> UUID | str:
        return f"Größe-{number}" if self.text_ids else uuid_of(number)

    def event(self, number: int, version: int, state: bytes = b"") -> StoredEvent:
        return StoredEvent(self.originator_id(number), version, f"Tüpic:{version % 3}", state)

    def record(self, count: int, *, start: int = 0) -> None:
        """Record events with states of different sizes, one in ten alone with a position."""
        for number in range(start, start + count):
            event = self.event(number // 10, number % 10 + 1, bytes([number % 256]) * (number % 50))
            if number % 10 == 9:
                self.recorder.insert_events([event], tracking=Tracking("Leader", number + 1))
            else:
                self.recorder.insert_events([event])

    def take_snapshots(self, *versions: tuple[int, int]) -> None:
        self.snapshots.insert_events([self.event(number, version, b"snapshot") for number, version in versions])

    def rows(self) -> dict[str, Sequence[Any]]:
        """Return everything that recorders return."""
        aggregates = {note.originator_id for note in self.notes()}
        return {
            "events": self.notes(),
            "snapshots": sorted(
                (
                    (str(event.originator_id), event.originator_version, event.topic, event.state)
                    for aggregate in aggregates
                    for event in self.snapshots.select_events(aggregate)
                ),
            ),
            "position": [self.recorder.max_tracking_id("Leader")],
        }

    def notes(self) -> list[Any]:
        notes: list[Any] = []
        while page := self.recorder.select_notifications(notes[-1].id + 1 if notes else 1, 1000):
            notes += page
        return notes


@contextmanager
def store(variables: dict[str, str]) -> Iterator[Store]:
    """Yield the store of these environment variables."""
    factory = SQLAlchemyFactory(Environment("Kennels", {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", **variables}))
    try:
        yield Store(factory, text_ids=variables.get("ORIGINATOR_ID_TYPE") == "text")
    finally:
        factory.close()

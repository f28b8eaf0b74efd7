"""Generate events, and verify that they were written: each state identifies its event."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import ApplicationRecorder, Notification, StoredEvent

from benchmarks.measurement import require

TOPIC: Final = "training.school.domain.model:Dog.Trained1"
COLUMNS: Final = "originator_id, originator_version, topic, state"
"""The columns that every events table has."""
STATE_BYTES: Final = 200
_PADDING: Final = random.Random("padding").randbytes(STATE_BYTES - 24)
_PAGE: Final = 1000


def state_of(originator: int, version: int) -> bytes:
    """Return an event's state, which is unique."""
    return originator.to_bytes(16, "big") + version.to_bytes(8, "big") + _PADDING


def stored_events(originator_id: UUID, versions: Iterable[int]) -> list[StoredEvent]:
    """Return one aggregate's events."""
    number = originator_id.int
    return [StoredEvent(originator_id, version, TOPIC, state_of(number, version)) for version in versions]


def originators(seed: object = None) -> Iterator[UUID]:
    """Yield new ids endlessly; equal seeds yield equal ids."""
    generator = random.Random(None if seed is None else str(seed))
    while True:
        yield UUID(int=generator.getrandbits(128), version=4)


def aggregates(events_each: int) -> Iterator[list[StoredEvent]]:
    """Yield the events of new aggregates endlessly."""
    versions = range(1, events_each + 1)
    for originator_id in originators():
        yield stored_events(originator_id, versions)


def is_as_written(event: StoredEvent | Notification) -> bool:
    """Return whether topic and state match the event's originator and version."""
    originator_id: Any = event.originator_id
    return event.topic == TOPIC and event.state == state_of(originator_id.int, event.originator_version)


def log(recorder: ApplicationRecorder, page: int = _PAGE) -> Iterator[Notification]:
    """Yield all notifications, page by page; raises WorkNotDoneError if ids are not ascending."""
    start, last = 1, 0
    while True:
        notifications = recorder.select_notifications(start, page)
        for notification in notifications:
            require(notification.id > last, f"Notification {notification.id} came after {last}.")
            last = notification.id
            yield notification
        if len(notifications) < page:
            return
        start = last + 1


class Ledger:
    """The events that a contestant reported as written. Holds only numbers, to keep garbage collections cheap."""

    def __init__(self) -> None:
        self._written: dict[int, tuple[int, tuple[int, ...]]] = {}

    def wrote(self, events: Sequence[StoredEvent], ids: Sequence[int] | None) -> int:
        """Record one new aggregate's events and their returned ids; return the number of events."""
        originator_id: Any = events[0].originator_id
        self._written[originator_id.int] = len(events), tuple(ids or ())
        return len(events)

    def add(self, other: Ledger) -> None:
        """Merge another ledger."""
        self._written |= other._written

    def check(self, recorder: ApplicationRecorder, *, others: bool = False) -> None:
        """Read the whole log; raise WorkNotDoneError unless it holds exactly these events, once, with the returned ids.

        With `others`, the log may hold further events.
        """
        found: dict[int, int] = {}
        for notification in log(recorder):
            originator_id: Any = notification.originator_id
            number = originator_id.int
            require(is_as_written(notification), f"Notification {notification.id} differs from the written event.")
            if number not in self._written:
                require(others, f"Notification {notification.id} was never written, or its insert failed.")
                continue
            version = found.get(number, 0) + 1
            found[number] = version
            require(
                notification.originator_version == version,
                f"Notification {notification.id} is version {notification.originator_version}, not {version}.",
            )
            count, ids = self._written[number]
            require(version <= count, f"Aggregate {originator_id} has more than {count} events.")
            require(
                not ids or ids[version - 1] == notification.id,
                f"Notification {notification.id} was returned as {ids[version - 1 : version]}.",
            )
        written, read = sum(count for count, _ in self._written.values()), sum(found.values())
        require(written == read > 0, f"{written} events were written, but {read} of them are in the log.")

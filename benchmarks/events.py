"""Events to write, and the proof that they were written: each state says which event it belongs to."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import ApplicationRecorder, Notification, StoredEvent

from benchmarks.measurement import require

TOPIC: Final = "training.school.domain.model:Dog.Trained1"
COLUMNS: Final = "originator_id, originator_version, topic, state"
"""Those that every table of events has."""
STATE_BYTES: Final = 200
_PADDING: Final = random.Random("padding").randbytes(STATE_BYTES - 24)
_PAGE: Final = 1000


def state_of(originator: int, version: int) -> bytes:
    """Return the state of an event, which is unlike that of any other."""
    return originator.to_bytes(16, "big") + version.to_bytes(8, "big") + _PADDING


def stored_events(originator_id: UUID, versions: Iterable[int]) -> list[StoredEvent]:
    """Return events of one aggregate."""
    number = originator_id.int
    return [StoredEvent(originator_id, version, TOPIC, state_of(number, version)) for version in versions]


def originators(seed: object = None) -> Iterator[UUID]:
    """Yield new ids for ever; the same ones for the same seed."""
    generator = random.Random(None if seed is None else str(seed))
    while True:
        yield UUID(int=generator.getrandbits(128), version=4)


def aggregates(events_each: int) -> Iterator[list[StoredEvent]]:
    """Yield new aggregates for ever, from their first event on."""
    versions = range(1, events_each + 1)
    for originator_id in originators():
        yield stored_events(originator_id, versions)


def is_as_written(event: StoredEvent | Notification) -> bool:
    """Tell whether topic and state are those of the event with this originator and version."""
    originator_id: Any = event.originator_id
    return event.topic == TOPIC and event.state == state_of(originator_id.int, event.originator_version)


def log(recorder: ApplicationRecorder, page: int = _PAGE) -> Iterator[Notification]:
    """Yield all notifications, page by page; raises WorkNotDoneError if ids do not ascend."""
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
    """What a contestant said it had written. Holds numbers only, so that it costs the garbage collector nothing."""

    def __init__(self) -> None:
        self._written: dict[int, tuple[int, tuple[int, ...]]] = {}

    def wrote(self, events: Sequence[StoredEvent], ids: Sequence[int] | None) -> int:
        """Remember events of one new aggregate, and the ids that were returned for them; return how many."""
        originator_id: Any = events[0].originator_id
        self._written[originator_id.int] = len(events), tuple(ids or ())
        return len(events)

    def add(self, other: Ledger) -> None:
        """Take over what another one remembers."""
        self._written |= other._written

    def check(self, recorder: ApplicationRecorder, *, others: bool = False) -> None:
        """Read the whole log and raise WorkNotDoneError unless it holds these events, complete, each once, with the
        returned ids, and no others (except if there may be `others`).
        """
        found: dict[int, int] = {}
        for notification in log(recorder):
            originator_id: Any = notification.originator_id
            number = originator_id.int
            require(is_as_written(notification), f"Notification {notification.id} is not what was written.")
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
            require(version <= count, f"There are more than {count} events of {originator_id}.")
            require(
                not ids or ids[version - 1] == notification.id,
                f"Notification {notification.id} was returned as {ids[version - 1 : version]}.",
            )
        written, read = sum(count for count, _ in self._written.values()), sum(found.values())
        require(written == read > 0, f"{written} events were written, and {read} of them are in the log.")

"""Read scenarios: R1 and R2."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from benchmarks.events import is_as_written
from benchmarks.measurement import Measurement, measure_calls, require
from benchmarks.preparation import aggregates_to_read

if TYPE_CHECKING:
    from eventsourcing.persistence import Notification

    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place


def read_aggregates(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R1: each call reads all events of a random aggregate."""
    factory = place.factory()
    result = measure_aggregates(scenario.number, size, factory.application_recorder().select_events)
    factory.close()
    return result


def measure_aggregates(events_each: int, size: Size, select: Callable[[UUID], Sequence[StoredEvent]]) -> Measurement:
    """Measure a function that returns all events of an aggregate."""
    ids = aggregates_to_read(events_each, size.events)
    choose = random.Random("R1").choice
    versions = list(range(1, events_each + 1))
    verified: set[UUID] = set()

    def check(originator_id: UUID, events: Sequence[StoredEvent]) -> int:
        require(len(events) == events_each, f"{len(events)} events instead of {events_each}.")
        if originator_id not in verified:
            verified.add(originator_id)
            require([event.originator_version for event in events] == versions, "Versions are not ascending.")
            require(all(event.originator_id == originator_id for event in events), "Events of another aggregate.")
            require(all(map(is_as_written, events)), "Events differ from the written ones.")
        return len(events)

    return measure_calls(size.seconds, lambda: choose(ids), select, check)


def read_pages(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R2: read the log from its start, page by page, repeatedly."""
    factory = place.factory()
    recorder = factory.application_recorder()
    result = measure_pages(scenario.number, size, lambda start: recorder.select_notifications(start, scenario.number))
    factory.close()
    return result


def measure_pages(page: int, size: Size, select: Callable[[int], Sequence[Notification]]) -> Measurement:
    """Measure a function that returns a page of notifications, starting at an id."""
    start = 1
    checked = 0

    def check(requested: int, notifications: Sequence[Notification]) -> int:
        nonlocal start, checked
        require(len(notifications) > 0 and notifications[0].id >= requested, f"Wrong page at id {requested}.")
        last = notifications[-1].id
        if len(notifications) < page:
            require(last >= size.events, f"The log ends at {last}.")
        if checked < size.events:
            checked += len(notifications)
            ids = [notification.id for notification in notifications]
            require(ids == sorted(set(ids)), "Ids are not ascending.")
            require(all(map(is_as_written, notifications)), "Notifications differ from the written events.")
        start = 1 if last >= size.events else last + 1
        return len(notifications)

    return measure_calls(size.seconds, lambda: start, select, check)

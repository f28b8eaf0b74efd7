"""Fill the databases that scenarios share in all rounds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final
from uuid import UUID

from benchmarks.events import log, originators, stored_events
from benchmarks.measurement import require
from benchmarks.school import School

if TYPE_CHECKING:
    from eventsourcing.persistence import ApplicationRecorder, StoredEvent

    from benchmarks.catalog import Preparation, Size
    from benchmarks.places import Place

READ_SIZES: Final = (10, 100, 1000)
MIN_LOG: Final = 2 * max(READ_SIZES)
MIN_APPLICATIONS: Final = 2  # One that stays open, and one to construct beside it.
SEEDED: Final = 10
"""Events of the initial aggregate of each fleet application."""

SCHOOL: Final = "school"
"""The name of the application in each schema."""

_BATCH: Final = 1000


def aggregates_to_read(events_each: int, events: int) -> list[UUID]:
    """Return the ids of the aggregates with `events_each` events: a tenth of the log, at least one."""
    return list(islice(originators(f"R1:{events_each}"), max(1, events // (10 * events_each))))


def seeded_aggregate(application: int) -> UUID:
    """Return the id of a fleet application's initial aggregate."""
    return next(originators(f"fleet:{application}"))


def schema_of(application: int) -> str:
    """Return the schema of an application."""
    return f"place_{application:05}"


def prepare(kind: Preparation, place: Place, size: Size) -> int:
    """Fill an empty database, and return the number of events or applications in it."""
    if kind == "log":
        factory = place.factory()
        recorder = factory.application_recorder()
        written = write_log(recorder, size.events)
        factory.close()
        return written
    if kind == "applications":
        return _make_applications(place, size.applications)
    return _make_fleet(place, size.fleet)


def events_of_log(events: int) -> Iterator[StoredEvent]:
    """Yield the log's events, grouped by aggregate, the aggregates in random order."""
    sizes = [(id_, n) for n in READ_SIZES for id_ in aggregates_to_read(n, events)]
    filling = originators("filling")
    left = events - sum(n for _, n in sizes)
    require(left >= 0, f"A log of {events} events is too short. Use at least {MIN_LOG}.")
    sizes += [(next(filling), min(10, left - start)) for start in range(0, left, 10)]
    random.Random("order").shuffle(sizes)
    for originator_id, n in sizes:
        yield from stored_events(originator_id, range(1, n + 1))


def write_log(recorder: ApplicationRecorder, events: int) -> int:
    """Write a log of `events` events, and verify it."""
    rest = events_of_log(events)
    while batch := list(islice(rest, _BATCH)):
        recorder.insert_events(batch)
    found = sum(1 for _ in log(recorder))
    require(found == events, f"{events} events were written to the log, but it has {found}.")
    return found


def _make_applications(place: Place, count: int) -> int:
    for number in range(count):
        place.make_schema(schema_of(number))
        School(place.environment(schema_of(number))).close()
    return count


def _make_fleet(place: Place, count: int) -> int:
    # One stays open, so that the shared engine does.
    keeper = place.factory("keeper", "keeper")
    for number in range(count):
        factory = place.factory(SCHOOL, schema_of(number))
        recorder = factory.application_recorder()
        recorder.insert_events(stored_events(seeded_aggregate(number), range(1, SEEDED + 1)))
        factory.close()
    keeper.close()
    return count

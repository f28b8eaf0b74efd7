"""Write scenarios: W1 to W5, and P1."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from eventsourcing.persistence import ApplicationRecorder, StoredEvent, Tracking

from benchmarks.events import Ledger, aggregates, log
from benchmarks.measurement import MAX_RATE, WARM_UP, Measurement, measure_calls, measure_threads, require
from benchmarks.preparation import SCHOOL, schema_of
from benchmarks.school import School

if TYPE_CHECKING:
    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place


def append(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """W1, W2: one thread appends new aggregates, one per call."""
    factory = place.factory()
    recorder = factory.application_recorder()
    ledger = Ledger()
    new = aggregates(scenario.number)
    result = measure_calls(size.seconds, lambda: next(new), recorder.insert_events, ledger.wrote)
    ledger.check(recorder)
    factory.close()
    return result


def append_to_one(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """W3: threads append to one application."""
    factory = place.factory()
    recorder = factory.application_recorder()
    ledgers = [Ledger() for _ in range(scenario.threads)]
    result = _append_by_threads([(recorder, ledger) for ledger in ledgers], size.seconds)
    _note_connections(result, place)
    for ledger in ledgers[1:]:
        ledgers[0].add(ledger)
    ledgers[0].check(recorder)
    factory.close()
    return result


def append_to_many(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """W4: one thread per application appends, each application in its own schema."""
    factories = []
    for number in range(scenario.threads):
        place.make_schema(schema_of(number))
        factories.append(place.factory(SCHOOL, schema_of(number)))
    work = [(factory.application_recorder(), Ledger()) for factory in factories]
    result = _append_by_threads(work, size.seconds)
    _note_connections(result, place)
    for recorder, ledger in work:
        ledger.check(recorder)
    for factory in factories:
        factory.close()
    return result


def _append_by_threads(work: Sequence[tuple[ApplicationRecorder, Ledger]], seconds: float) -> Measurement:
    made_beforehand = int(seconds * MAX_RATE / len(work)) + WARM_UP

    def body(recorder: ApplicationRecorder, ledger: Ledger) -> Callable[[Callable[[], bool]], list[float]]:
        new = aggregates(1)
        made = list(islice(new, made_beforehand))

        def appends(goes_on: Callable[[], bool]) -> list[float]:
            events = chain(made, new)
            clock = time.perf_counter
            latencies: list[float] = []
            for batch in islice(events, WARM_UP):
                ledger.wrote(batch, recorder.insert_events(batch))
            while goes_on():
                batch = next(events)
                start = clock()
                ids = recorder.insert_events(batch)
                latencies.append(clock() - start)
                ledger.wrote(batch, ids)
            return latencies

        return appends

    return measure_threads(seconds, [body(*pair) for pair in work])


def _note_connections(result: Measurement, place: Place) -> None:
    if not place.is_sqlite:
        result.extra["connections"] = place.connection_count()


def process(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """P1: each call appends an event and the position of the notification that caused it."""
    factory = place.factory()
    recorder = factory.process_recorder()
    ledger = Ledger()
    new = aggregates(1)
    position = 0

    def make() -> tuple[list[StoredEvent], Tracking]:
        nonlocal position
        position += 1
        return next(new), Tracking("followed", position)

    result = measure_calls(
        size.seconds,
        make,
        lambda item: recorder.insert_events(item[0], tracking=item[1]),
        lambda item, ids: ledger.wrote(item[0], ids),
    )
    ledger.check(recorder)
    recorded = recorder.max_tracking_id("followed")
    require(recorded == position, f"The tracking position is {recorded} after {position} was written.")
    factory.close()
    return result


def application(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """W5: a whole application; each call creates an aggregate, changes it and reads it."""
    app = School(place.environment())
    names = map(str, range(10**9))
    cycles = 0

    def cycle(name: str) -> list[str]:
        dog_id = app.register(name)
        app.add_trick(dog_id, name)
        return app.get_tricks(dog_id)

    def check(name: str, tricks: list[str]) -> int:
        nonlocal cycles
        cycles += 1
        require(tricks == [name], f"Dog {name} knows {tricks}.")
        return 1

    result = measure_calls(size.seconds, lambda: next(names), cycle, check)
    recorded = sum(1 for _ in log(app.recorder))
    require(recorded == 2 * cycles, f"{recorded} events were recorded in {cycles} cycles of two.")
    app.close()
    return result

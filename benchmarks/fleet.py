"""The scenario `fleet`: very many applications on one engine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING

from eventsourcing.persistence import ApplicationRecorder, StoredEvent

from benchmarks.events import Ledger, aggregates, stored_events
from benchmarks.measurement import MAX_RATE, Measurement, measure_threads, quantile, require
from benchmarks.preparation import SCHOOL, SEEDED, schema_of, seeded_aggregate

if TYPE_CHECKING:
    from eventsourcing.persistence import Notification

    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place


def fleet(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """Append to and read from very many applications on one engine, in threads: few of them often, most rarely.

    The first call of each application is measured separately.
    """
    clock = time.perf_counter
    began = clock()
    factories = [place.factory(SCHOOL, schema_of(number)) for number in range(size.fleet)]
    recorders = [factory.application_recorder() for factory in factories]
    opened = clock() - began
    ledgers: list[dict[int, Ledger]] = [{} for _ in range(scenario.threads)]
    first: list[float] = []
    warm: list[float] = []
    touched: dict[int, object] = {}
    seeded = [seeded_aggregate(number) for number in range(size.fleet)]

    def body(thread: int) -> Callable[[Callable[[], bool]], list[float]]:
        new = zip(_traffic(thread, size.fleet), aggregates(1), strict=True)
        made = list(islice(new, int(size.seconds * MAX_RATE / scenario.threads)))
        written = ledgers[thread]

        def call(number: int, kind: str, batch: list[StoredEvent]) -> float:
            recorder = recorders[number]
            ids: Sequence[int] | None = None
            found: Sequence[StoredEvent] | Sequence[Notification] = ()
            start = clock()
            if kind == "append":
                ids = recorder.insert_events(batch)
            elif kind == "aggregate":
                found = recorder.select_events(seeded[number])
            else:
                found = recorder.select_notifications(1, SEEDED)
            latency = clock() - start
            if kind == "append":
                written.setdefault(number, Ledger()).wrote(batch, ids)
            else:
                require(len(found) == SEEDED, f"{len(found)} events instead of {SEEDED}.")
                require(found[0].originator_id == seeded[number], "Events of another application.")
            return latency

        def calls(goes_on: Callable[[], bool]) -> list[float]:
            latencies = []
            work = chain(made, new)
            while goes_on():
                (number, kind), batch = next(work)
                token = object()
                is_first = touched.setdefault(number, token) is token
                latency = call(number, kind, batch)
                latencies.append(latency)
                (first if is_first else warm).append(latency)
            return latencies

        return calls

    result = measure_threads(size.seconds, [body(thread) for thread in range(scenario.threads)])
    first_p99, warm_p99 = quantile(first, 0.99) or 0.0, quantile(warm, 0.99) or 0.0
    result.extra |= {
        "connections": place.connection_count(),
        "first p99 ms": first_p99,
        "warm p99 ms": warm_p99,
        "first / warm p99": first_p99 / (warm_p99 or 1.0),
        "touched": len(touched),
        "ms to open each": 1000 * opened / size.fleet,
    }
    for number, recorder in enumerate(recorders):
        _check_member(number, recorder, [written[number] for written in ledgers if number in written])
    for factory in factories:
        factory.close()
    return result


def _check_member(number: int, recorder: ApplicationRecorder, ledgers: Sequence[Ledger]) -> None:
    """Verify the events that this round wrote to one application; earlier rounds' events are allowed."""
    seeded = Ledger()
    seeded.wrote(stored_events(seeded_aggregate(number), range(1, SEEDED + 1)), None)
    for ledger in ledgers:
        seeded.add(ledger)
    seeded.check(recorder, others=True)


def _traffic(thread: int, applications: int) -> Iterator[tuple[int, str]]:
    """Yield (application, kind of call) endlessly: Zipf's distribution with exponent 1, half of the calls append."""
    generator = random.Random(f"traffic:{thread}")
    weights = list(accumulate(1 / rank for rank in range(1, applications + 1)))
    # The busy applications must not depend on the order in which tables were created.
    order = random.Random("popularity").sample(range(applications), applications)
    kinds = ("append", "append", "aggregate", "page")
    while True:
        for number in generator.choices(order, cum_weights=weights, k=1024):
            yield number, generator.choice(kinds)

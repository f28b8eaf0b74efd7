"""Start-up scenarios: T1 creates the tables of applications, M1 constructs applications with existing tables."""

from __future__ import annotations

import math
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from eventsourcing.persistence import InfrastructureFactory

from benchmarks.measurement import Measurement, measure_calls, measure_threads, require, settle
from benchmarks.preparation import SCHOOL, schema_of
from benchmarks.school import School

if TYPE_CHECKING:
    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place


def provision(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """T1: create the events, snapshots and tracking tables of new applications.

    T1 itself creates all of them as fast as the contestant can; its variants construct each application. Each has its
    own schema, except for upstream, whose process recorder ignores schemas: there each has its own name. Peers do not
    create schemas, so this is done for them and counts, because their users wait for it too.
    """
    by_name = place.contestant.name == "upstream"
    lock = threading.Lock()

    def make(number: int) -> InfrastructureFactory[Any]:
        schema = None if by_name else schema_of(number)
        if schema is not None:
            with lock:
                place.make_schema(schema)
        factory = place.factory(f"{SCHOOL}{number}" if by_name else SCHOOL, schema)
        factory.process_recorder()
        factory.aggregate_recorder("snapshots")
        return factory

    keeper = make(0)  # Like a running process, has an engine with an open connection.
    numbers = iter(range(1, size.tenants + 1))

    def body(goes_on: Callable[[], bool]) -> list[float]:
        latencies = []
        goes_on()
        for number in numbers:
            start = time.perf_counter()
            factory = make(number)
            latencies.append(time.perf_counter() - start)
            factory.close()
        return latencies

    if scenario.name == "T1" and place.contestant.kind == "ours":
        result = _make_together(place, numbers)
    elif scenario.threads == 1:
        result = measure_calls(
            math.inf, lambda: next(numbers), make, lambda _, factory: _closed(factory), warm_up=0, at_most=size.tenants
        )
    else:
        result = measure_threads(0, [body for _ in range(scenario.threads)])
    rows = place.query(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    )
    tables = 3 * (size.tenants + 1)
    require(rows[0][0] == tables, f"{rows[0][0]} tables were created instead of {tables}.")
    keeper.close()
    return result


def _make_together(place: Place, numbers: Iterable[int]) -> Measurement:
    """Create the tables of all applications at once, with ours only."""
    from eventsourcing_sqlalchemy.provisioning import create_many

    start = time.perf_counter()
    factories = [place.factory(SCHOOL, schema_of(number), create_table="no") for number in numbers]
    recorders: list[Any] = [
        recorder
        for factory in factories
        for recorder in (factory.process_recorder(), factory.aggregate_recorder("snapshots"))
    ]
    create_many(recorders[0].datastore, [spec for recorder in recorders for spec in recorder.tables])
    seconds = time.perf_counter() - start
    for factory in factories:
        factory.close()
    return Measurement(len(factories), seconds, [seconds / len(factories)])


def _closed(factory: InfrastructureFactory[Any]) -> int:
    factory.close()
    return 1


def construct(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """M1: construct applications with existing tables; measure time, memory, threads and connections of each."""
    keeper = School(place.environment(schema_of(0)))
    keeper.recorder.max_notification_id()
    numbers = range(1, size.applications)

    def construct_all() -> tuple[list[School], list[float]]:
        held, latencies = [], []
        for number in numbers:
            environment = place.environment(schema_of(number))
            start = time.perf_counter()
            held.append(School(environment))
            latencies.append(time.perf_counter() - start)
        return held, latencies

    has_connections = place.contestant.kind != "limit"
    connections_before = place.connection_count() if has_connections else 0
    threads_before = threading.active_count()
    settle()
    held, latencies = construct_all()
    result = Measurement(len(latencies), sum(latencies), latencies)
    if has_connections:
        result.extra["connections each"] = (_steady(place.connection_count) - connections_before) / len(held)
    result.extra["threads each"] = (threading.active_count() - threads_before) / len(held)
    for app in held:
        # Verify that the application works, on the existing tables.
        require(not app.recorder.max_notification_id(), "A new application has events.")
        app.close()
    del app, held

    tracemalloc.start()
    settle()
    before = tracemalloc.get_traced_memory()[0]
    held, _ = construct_all()
    result.extra["KiB each"] = (tracemalloc.get_traced_memory()[0] - before) / len(held) / 1024
    tracemalloc.stop()
    for app in (*held, keeper):
        app.close()
    return result


_STEADY_SECONDS: Final = 0.3


def _steady(count: Callable[[], int]) -> int:
    """Return a count once it is stable, because pools connect in the background."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < _STEADY_SECONDS:
        time.sleep(0.02)
        now = count()
        if now != last:
            last, since = now, time.monotonic()
    return last

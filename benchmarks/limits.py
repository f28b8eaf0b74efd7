"""Limits of the database: the same work through a raw driver, without a recorder.

The tables have the same shape, and the rows are verified as for the other contestants.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import limits_reading, limits_sqlite, starting, writing
from benchmarks.events import COLUMNS, TOPIC, aggregates, originators, state_of
from benchmarks.measurement import MAX_RATE, WARM_UP, Measurement, measure_calls, measure_threads, require
from benchmarks.preparation import schema_of

if TYPE_CHECKING:
    from eventsourcing.persistence import StoredEvent

    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place

PGBENCH_VARIABLE: Final = "BENCHMARK_PGBENCH"
"""Passes a worker the path of pgbench; empty or unset if it is not installed."""

_PGBENCH_RATE: Final = 5000
"""Transactions of pgbench per requested second, because its own duration option takes whole seconds only."""

_LOCK: Final = 4711
_STATEMENT: Final = (
    "WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), "
    f"l AS MATERIALIZED (SELECT pg_advisory_xact_lock({_LOCK}) FROM c) "
    f"INSERT INTO public.limit_events ({COLUMNS}) SELECT {{values}} FROM l RETURNING id"
)
"""The statement with which a recorder writes one event; `values` are four."""


def _table(schema: str = "public") -> str:
    return f'"{schema}".limit_events'


def _make_table(place: Place, schema: str = "public") -> None:
    place.query(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    place.query(
        f"CREATE TABLE {_table(schema)} (id bigserial PRIMARY KEY, originator_id uuid NOT NULL, "
        "originator_version bigint NOT NULL, topic text NOT NULL, state bytea NOT NULL, "
        "UNIQUE (originator_id, originator_version))"
    )


def _require_rows(place: Place, expected: int, schema: str = "public", state: bytes | None = None) -> None:
    """Raise WorkNotDoneError unless the table holds `expected` correct rows."""
    rows = place.query(f"SELECT originator_id, originator_version, topic, state FROM {_table(schema)}")
    require(len(rows) == expected > 0, f"{len(rows)} rows were written instead of {expected}.")
    for originator_id, version, topic, found in rows:
        wanted = state_of(originator_id.int, version) if state is None else state
        require(topic == TOPIC and bytes(found) == wanted, "A row differs from the written event.")


# -- PostgreSQL --


def same_statement(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """W1: pgbench with the recorder's statement, prepared, on one connection; a Python loop without pgbench."""
    _make_table(place)
    program = os.environ.get(PGBENCH_VARIABLE)
    return _pgbench(program, place, size) if program else _raw_loop(place, size)


def _pgbench(program: str, place: Place, size: Size) -> Measurement:
    state = state_of(next(originators("pgbench")).int, 1)
    count = max(20, int(size.seconds * _PGBENCH_RATE))
    values = "gen_random_uuid(), 1::bigint, :topic::text, decode(:state, 'hex')"
    parameters = place.connection_parameters()
    directory = Path(tempfile.mkdtemp(prefix="benchmarks-pgbench-"))
    try:
        script = directory / "statement.sql"
        script.write_text(f"{_STATEMENT.format(values=values)};\n")
        command = [program, "--no-vacuum", "--protocol=prepared", f"--transactions={count}", f"--file={script}"]
        command += [f"--define=topic={TOPIC}", f"--define=state={state.hex()}"]
        command += ["--log", f"--log-prefix={directory / 'log'}", parameters["dbname"]]
        environment = {f"PG{key.upper()}": value for key, value in parameters.items() if key != "dbname" and value}
        done = subprocess.run(
            command, env=os.environ | environment, check=False, capture_output=True, text=True, cwd=directory
        )
        require(done.returncode == 0, f"pgbench failed: {done.stderr.strip()}")
        # client, number, microseconds, ...
        lines = [line.split() for path in directory.glob("log.*") for line in path.read_text().splitlines()]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    latencies = [int(line[2]) / 1e6 for line in lines]
    _require_rows(place, count, state=state)
    require(len(latencies) == count, f"pgbench reports {len(latencies)} of {count} transactions.")
    return Measurement(len(latencies), sum(latencies), latencies)


def _raw_loop(place: Place, size: Size) -> Measurement:
    connection = place.connect()
    cursor = connection.cursor()
    statement = _STATEMENT.format(values="%b::uuid, %b::bigint, %b::text, %b::bytea")
    new = aggregates(1)
    written = 0

    def call(batch: list[StoredEvent]) -> Sequence[tuple[int]]:
        (event,) = batch
        row = (event.originator_id, event.originator_version, event.topic, event.state)
        rows: Sequence[tuple[int]] = cursor.execute(statement, row, prepare=True).fetchall()
        return rows

    def check(_: list[StoredEvent], rows: Sequence[tuple[int]]) -> int:
        nonlocal written
        written += len(rows)
        return len(rows)

    result = measure_calls(size.seconds, lambda: next(new), call, check)
    _require_rows(place, written)
    connection.close()
    result.note = "no pgbench: a loop in Python, psycopg, prepared"
    return result


def copy(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """W2: binary COPY of the same rows, one transaction per call."""
    _make_table(place)
    connection = place.connect()
    cursor = connection.cursor()
    new = aggregates(scenario.number)
    written = 0

    def call(batch: list[StoredEvent]) -> None:
        with cursor.copy(f"COPY {_table()} ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as rows:
            rows.set_types(["uuid", "int8", "text", "bytea"])
            for event in batch:
                rows.write_row((event.originator_id, event.originator_version, event.topic, event.state))

    def check(batch: list[StoredEvent], _: None) -> int:
        nonlocal written
        written += len(batch)
        return len(batch)

    result = measure_calls(size.seconds, lambda: next(new), call, check)
    _require_rows(place, written)
    connection.close()
    return result


def unordered_inserts(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """W3, W4: unordered inserts, one connection per thread, into one table or one per thread."""
    schemas = [schema_of(number) if scenario.family == "W4" else "public" for number in range(scenario.threads)]
    for schema in dict.fromkeys(schemas):
        _make_table(place, schema)
    counts = [0] * scenario.threads
    made_beforehand = int(size.seconds * MAX_RATE / scenario.threads) + WARM_UP

    def body(thread: int) -> Callable[[Callable[[], bool]], list[float]]:
        new = aggregates(1)
        made = list(islice(new, made_beforehand))
        statement = f"INSERT INTO {_table(schemas[thread])} ({COLUMNS}) VALUES (%b, %b, %b, %b) RETURNING id"

        def inserts(goes_on: Callable[[], bool]) -> list[float]:
            latencies: list[float] = []
            clock = time.perf_counter
            events = chain(made, new)
            with place.connect() as connection:
                cursor = connection.cursor()

                def insert(event: StoredEvent) -> None:
                    row = (event.originator_id, event.originator_version, event.topic, event.state)
                    counts[thread] += len(cursor.execute(statement, row, prepare=True).fetchall())

                for (event,) in islice(events, WARM_UP):
                    insert(event)
                while goes_on():
                    (event,) = next(events)
                    start = clock()
                    insert(event)
                    latencies.append(clock() - start)
            return latencies

        return inserts

    result = measure_threads(size.seconds, [body(thread) for thread in range(scenario.threads)])
    result.extra["connections"] = scenario.threads
    if scenario.family == "W4":
        for schema, count in zip(schemas, counts, strict=True):
            _require_rows(place, count, schema)
    else:
        _require_rows(place, sum(counts))
    return result


LIMITS: Final[dict[tuple[str, str], Callable[[Scenario, Place, Size], Measurement]]] = {
    ("pgbench", "W1"): same_statement,
    ("copy", "W2"): copy,
    ("inserts", "W3"): unordered_inserts,
    ("inserts", "W4"): unordered_inserts,
    ("memory", "W5"): writing.application,
    ("memory", "M1"): starting.construct,
    ("libpq", "R1"): limits_reading.aggregates,
    ("libpq", "R2"): limits_reading.pages,
    ("sqlite3", "W1"): limits_sqlite.inserts,
    ("sqlite3", "R1"): limits_sqlite.aggregates,
    ("sqlite3", "R2"): limits_sqlite.pages,
}

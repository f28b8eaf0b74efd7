"""Limits of SQLite: Python's sqlite3 module, without a recorder."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

from benchmarks import reading
from benchmarks.events import COLUMNS, originators, state_of, stored_events
from benchmarks.measurement import Measurement, measure_calls, require
from benchmarks.preparation import events_of_log

if TYPE_CHECKING:
    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place


def make_log(place: Place, size: Size) -> None:
    """Write the log, as :mod:`benchmarks.preparation` does for the other contestants."""
    connection = _connect(place)
    connection.execute("BEGIN IMMEDIATE")
    for event in events_of_log(size.events):
        _insert(connection, event)
    connection.execute("COMMIT")
    connection.close()


def _connect(place: Place) -> sqlite3.Connection:
    connection: sqlite3.Connection = place.connect()
    connection.execute(
        "CREATE TABLE IF NOT EXISTS limit_events (id INTEGER PRIMARY KEY, originator_id BLOB NOT NULL, "
        "originator_version BIGINT NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL, "
        "UNIQUE (originator_id, originator_version))"
    )
    return connection


def _insert(connection: sqlite3.Connection, event: StoredEvent) -> int | None:
    originator_id: Any = event.originator_id
    row = (originator_id.bytes, event.originator_version, event.topic, event.state)
    return connection.execute(f"INSERT INTO limit_events ({COLUMNS}) VALUES (?, ?, ?, ?)", row).lastrowid


def inserts(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """W1 on SQLite: autocommitted INSERT statements."""
    connection = _connect(place)
    new = originators()
    written = 0

    def check(_: StoredEvent, row_id: int | None) -> int:
        nonlocal written
        written += 1
        require(row_id == written, f"Row {written} got the id {row_id}.")
        return 1

    result = measure_calls(
        size.seconds,
        lambda: stored_events(next(new), (1,))[0],
        lambda event: _insert(connection, event),
        check,
    )
    rows = connection.execute("SELECT originator_id, state FROM limit_events").fetchall()
    require(len(rows) == written, f"{written} rows were written, but the table has {len(rows)}.")
    require(
        all(row[1] == state_of(int.from_bytes(row[0], "big"), 1) for row in rows),
        "A row differs from the written event.",
    )
    connection.close()
    return result


def aggregates(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R1 on SQLite: one SELECT, converted to the library's objects."""
    connection = _connect(place)
    statement = (
        "SELECT originator_version, topic, state FROM limit_events WHERE originator_id = ? ORDER BY originator_version"
    )

    def select(originator_id: UUID) -> list[StoredEvent]:
        rows = connection.execute(statement, (originator_id.bytes,)).fetchall()
        return [StoredEvent(originator_id, *row) for row in rows]

    result = reading.measure_aggregates(scenario.number, size, select)
    connection.close()
    return result


def pages(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R2 on SQLite: one SELECT, converted to the library's objects."""
    connection = _connect(place)
    statement = f"SELECT id, {COLUMNS} FROM limit_events WHERE id >= ? ORDER BY id LIMIT ?"

    def select(start: int) -> list[Notification]:
        rows = connection.execute(statement, (start, scenario.number)).fetchall()
        return [
            Notification(UUID(bytes=originator_id), version, topic, state, number)
            for number, originator_id, version, topic, state in rows
        ]

    result = reading.measure_pages(scenario.number, size, select)
    connection.close()
    return result

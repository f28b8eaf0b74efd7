"""Golden files of the SQL that recorders send. `python -m tests.unit.core.golden_sql` writes them.

No database is used: recorders run on a datastore that notes each statement, and answers with made-up rows.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from eventsourcing.persistence import StoredEvent, Tracking

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.recorders import (
    ConditionalTracking,
    SQLAlchemyAggregateRecorder,
    SQLAlchemyProcessRecorder,
    SQLAlchemyTrackingRecorder,
)

DIRECTORY: Final = Path(__file__).parent / "golden"
HOW_TO_WRITE: Final = "python -m tests.unit.core.golden_sql"
URLS: Final = {
    "postgresql": "postgresql+psycopg2://user@nowhere/nothing",
    "sqlite": "sqlite:////nowhere/nothing.db",
}
EVENTS_READ: Final[dict[str, dict[str, Any]]] = {
    "all": {},
    "gt": {"gt": 1},
    "lte": {"lte": 9},
    "gt, lte, desc, limit": {"gt": 1, "lte": 9, "desc": True, "limit": 1},
    "desc": {"desc": True},
    "limit": {"limit": 1},
}
NOTIFICATIONS_READ: Final[dict[str, dict[str, Any]]] = {
    "from the beginning": {"start": None},
    "start": {"start": 1},
    "start, exclusive": {"start": 1, "inclusive_of_start": False},
    "start, stop": {"start": 1, "stop": 9},
    "stop": {"start": None, "stop": 9},
    "one topic": {"start": None, "topics": ["a"]},
    "start, stop, two topics": {"start": 1, "stop": 9, "topics": ["a", "b"]},
}
# Too many for PostgreSQL's single statement.
LARGE: Final = bytes(5 * 2**20)

_T = TypeVar("_T")


class Scribe:
    """Notes statements instead of running them."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, prepare: bool = True) -> Sequence[Sequence[Any]]:
        """Answer queries as an empty database, and inserts as if they had succeeded."""
        self._write(statement)
        if re.search("RETURNING|SELECT id FROM i", statement):
            return [(number,) for number in range(4)]
        return [(9, None, None)] if re.search(r"max\(|last_insert_rowid", statement) else []

    def run_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        self._write(statement)

    def run_script(self, statements: Sequence[str]) -> None:
        for statement in statements:
            self._write(statement)

    def load(self, statement: str, rows: bytes) -> None:
        self._write(statement)

    def _write(self, statement: str) -> None:
        # SQLAlchemy leaves trailing spaces.
        self.statements.append("\n".join(line.rstrip() for line in statement.strip().splitlines()) + ";")


class SilentDatastore(SQLAlchemyDatastore):
    """A datastore that never connects."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scribe = Scribe()

    def run(self, work: Callable[[Executor], _T], subject: str = "") -> _T:
        """Note the statements."""
        return work(self.scribe)

    def default_schema(self) -> str | None:
        """Return the default schema without a database."""
        return self.dialect.default_schema("public")

    def take(self, call: Callable[[], Any]) -> str:
        """Return the SQL of a call."""
        self.scribe.statements.clear()
        call()
        return "\n".join(self.scribe.statements)


def events(count: int, ids: str, state: bytes = b"{}") -> list[StoredEvent]:
    """Return events of one aggregate."""
    originator_id = UUID(int=1) if ids == "uuid" else "dog-1"
    return [StoredEvent(originator_id, version, "module:Class", state) for version in range(1, count + 1)]


class Sheet:
    """The SQL of one database, with ids of one type."""

    def __init__(self, database: str, ids: str) -> None:
        self._ids = ids
        self._datastore = SilentDatastore(url=URLS[database], originator_id_type=ids)
        schema = "school" if database == "postgresql" else None
        self._process = SQLAlchemyProcessRecorder(
            self._datastore,
            events_table_name="dogs_events",
            tracking_table_name="dogs_tracking",
            schema_name=schema,
        )
        self._snapshots = SQLAlchemyAggregateRecorder(
            self._datastore, events_table_name="dogs_snapshots", schema_name=schema, for_snapshots=True
        )
        self._tracking = SQLAlchemyTrackingRecorder(
            self._datastore, tracking_table_name="dogs_tracking", schema_name=schema
        )
        self._odd = SQLAlchemyProcessRecorder(
            self._datastore,
            events_table_name='100 % "dogs"',
            tracking_table_name="it's tracked",
            schema_name='Größe "1"' if database == "postgresql" else None,
        )

    def close(self) -> None:
        """Release the engine."""
        self._datastore.close()

    def reads(self) -> Iterable[tuple[str, str]]:
        """Yield the SQL of reads."""
        process, snapshots = self._process, self._snapshots
        originator_id = events(1, self._ids)[0].originator_id
        for title, options in EVENTS_READ.items():
            yield f"select_events: {title}", self._take(process.select_events, originator_id, **options)
        yield (
            "select_events of snapshots: the last",
            self._take(snapshots.select_events, originator_id, desc=True, limit=1),
        )
        for title, options in NOTIFICATIONS_READ.items():
            yield f"select_notifications: {title}", self._take(process.select_notifications, limit=10, **options)
        yield "max_notification_id", self._take(process.max_notification_id)
        yield "max_notification_id of a table with an odd name", self._take(self._odd.max_notification_id)
        yield "max_tracking_id", self._take(process.max_tracking_id, "upstream")
        has_positions = process._has_positions  # noqa: SLF001 (called when the events table is missing)
        yield "whether there are positions", self._take(has_positions)
        yield "select_events of a table with an odd name", self._take(self._odd.select_events, originator_id)
        recorded = process._ids_if_recorded  # noqa: SLF001 (called after an ambiguous commit)
        yield "after an ambiguous commit", self._take(recorded, events(1, self._ids), None)
        recorded = snapshots._ids_if_recorded  # noqa: SLF001
        yield "after an ambiguous commit of a snapshot", self._take(recorded, events(1, self._ids), None)

    def writes(self) -> Iterable[tuple[str, str]]:
        """Yield the SQL of writes."""
        tracking, conditional = Tracking("upstream", 7), ConditionalTracking("upstream", 7, at_least=5)
        one, two, large = events(1, self._ids), events(2, self._ids), events(2, self._ids, LARGE)
        for title, recorder in {"events": self._process, "snapshots": self._snapshots, "odd": self._odd}.items():
            yield f"{title}: one", self._take(recorder.insert_events, one)
            yield f"{title}: two", self._take(recorder.insert_events, two)
            yield f"{title}: large ones", self._take(recorder.insert_events, large)
        yield "events with tracking: one", self._take(self._process.insert_events, one, tracking=tracking)
        yield "events with tracking: two", self._take(self._process.insert_events, two, tracking=tracking)
        yield "events with tracking: large ones", self._take(self._process.insert_events, large, tracking=tracking)
        yield "no events with tracking", self._take(self._process.insert_events, [], tracking=tracking)
        yield "tracking alone", self._take(self._tracking.insert_tracking, tracking)
        for title, some in {"one": one, "two": two, "large ones": large}.items():
            taken = self._take(self._process.insert_events, some, tracking=conditional)
            yield f"events with conditional tracking: {title}", taken
        yield "conditional tracking alone", self._take(self._tracking.insert_tracking, conditional)

    def tables(self) -> Iterable[tuple[str, str]]:
        """Yield the SQL that creates tables."""
        yield "events and tracking", self._take(self._process.create_table)
        yield "snapshots", self._take(self._snapshots.create_table)
        yield "odd names", self._take(self._odd.create_table)

    def _take(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
        return self._datastore.take(lambda: call(*arguments, **options))


PARTS: Final[dict[str, Callable[[Sheet], Iterable[tuple[str, str]]]]] = {
    "reads": Sheet.reads,
    "writes": Sheet.writes,
    "tables": Sheet.tables,
}
NAMES: Final = [f"{database}_{ids}_{part}.sql" for database in URLS for ids in ("uuid", "text") for part in PARTS]


def text_of(name: str) -> str:
    """Return the expected contents of the file of this name."""
    database, ids, part = name.removesuffix(".sql").split("_")
    sheet = Sheet(database, ids)
    try:
        return "\n\n".join(f"-- {title}\n{sql}" for title, sql in PARTS[part](sheet)) + "\n"
    finally:
        sheet.close()


def main() -> None:
    """Write all files."""
    for old in DIRECTORY.glob("*.sql"):
        old.unlink()
    for name in NAMES:
        (DIRECTORY / name).write_text(text_of(name), encoding="utf-8")
    sys.stdout.write(f"{len(NAMES)} files are in {DIRECTORY}. Read the difference before you commit it.\n")


if __name__ == "__main__":
    main()

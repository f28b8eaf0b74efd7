"""Tables as the published package creates them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from eventsourcing_sqlalchemy.naming import quote

# In the schema that the connection uses by default, and in one that is set.
ON_POSTGRES = """
CREATE TABLE {schema}.school_events (
    id BIGSERIAL NOT NULL, originator_id UUID NOT NULL, originator_version BIGINT NOT NULL,
    topic TEXT NOT NULL, state BYTEA NOT NULL, PRIMARY KEY (id)
);
CREATE UNIQUE INDEX school_events_aggregate_idx ON {schema}.school_events (originator_id, originator_version);
CREATE TABLE {schema}.school_snapshots (
    originator_id UUID NOT NULL, originator_version BIGINT NOT NULL, topic TEXT NOT NULL, state BYTEA NOT NULL,
    PRIMARY KEY (originator_id, originator_version)
);
CREATE TABLE {schema}.school_tracking (
    application_name VARCHAR(32) NOT NULL, notification_id BIGINT NOT NULL, PRIMARY KEY (application_name)
)
"""
ON_SQLITE = """
CREATE TABLE school_events (
    id INTEGER NOT NULL, originator_id BINARY(16) NOT NULL, originator_version BIGINT NOT NULL,
    topic TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (id)
);
CREATE UNIQUE INDEX school_events_aggregate_idx ON school_events (originator_id, originator_version);
CREATE TABLE school_snapshots (
    originator_id BINARY(16) NOT NULL, originator_version BIGINT NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (originator_id, originator_version)
);
CREATE TABLE school_tracking (
    application_name VARCHAR(32) NOT NULL, notification_id BIGINT NOT NULL, PRIMARY KEY (application_name)
)
"""
COLUMNS = "(originator_id, originator_version, topic, state)"


class PublishedTables:
    """The tables as the published package left them, with two events, a snapshot and a tracking position.

    On SQLite, `table_prefix` stands where a schema cannot.
    """

    def __init__(self, url: str, schema: str | None, table_prefix: str = "") -> None:
        self.schema = schema
        self.originator_id = uuid4()
        self._engine = sa.create_engine(url)
        is_sqlite = self._engine.dialect.name == "sqlite"
        self.prefix = "" if is_sqlite else f"{quote(schema or 'public')}."
        script = ON_SQLITE if is_sqlite else ON_POSTGRES.format(schema=quote(schema or "public"))
        script = script.replace("school_", f"{table_prefix}school_")
        school = f"{self.prefix}{table_prefix}school"
        stored_id = self.originator_id.bytes if is_sqlite else self.originator_id
        with self._engine.begin() as connection:
            if schema is not None:
                connection.execute(sa.schema.CreateSchema(schema))
            for statement in script.split(";"):
                connection.execute(sa.text(statement))
            for table, version in (("events", 1), ("events", 2), ("snapshots", 2)):
                connection.execute(
                    sa.text(f"INSERT INTO {school}_{table} {COLUMNS} VALUES (:id, :version, :topic, :state)"),
                    {"id": stored_id, "version": version, "topic": "old", "state": b"\0\xff"},
                )
            connection.execute(sa.text(f"INSERT INTO {school}_tracking VALUES ('upstream', 7)"))

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def shape(self) -> dict[str, Any]:
        """Return all that the database says about the tables."""
        inspector = sa.inspect(self._engine)
        return {
            table: (
                [{**column, "type": repr(column["type"])} for column in inspector.get_columns(table, self.schema)],
                inspector.get_indexes(table, self.schema),
                inspector.get_unique_constraints(table, self.schema),
                inspector.get_pk_constraint(table, self.schema),
            )
            for table in inspector.get_table_names(self.schema)
        }

    def execute(self, statement: str) -> None:
        """Run a statement and commit."""
        with self._engine.begin() as connection:
            connection.execute(sa.text(statement))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows that a statement selects."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]

    def scalar(self, statement: str) -> Any:
        """Return the only value that a statement selects."""
        with self._engine.connect() as connection:
            return connection.scalar(sa.text(statement))

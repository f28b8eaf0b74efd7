"""A contestant's database, and the settings with which the library reaches it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote, urlsplit

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment

if TYPE_CHECKING:
    from benchmarks.catalog import Contestant

URL_VARIABLE: Final = "BENCHMARK_URL"
"""Passes a worker its database. An argument, which may hold a password, would be visible to all users."""

_CONNECTIONS: Final = 16


class Place:
    """A database for one contestant. `url` names no driver; `threads` is the number of concurrent threads."""

    def __init__(self, contestant: Contestant, url: str, threads: int = 1) -> None:
        self.contestant = contestant
        self.url = url
        self._threads = threads
        self._parts = urlsplit(url)
        self._raw: Any = None

    @property
    def is_sqlite(self) -> bool:
        """Whether it is an SQLite file."""
        return self._parts.scheme == "sqlite"

    @property
    def file(self) -> str:
        """The path of the SQLite file."""
        return self.url.removeprefix("sqlite:///")

    @property
    def has_own_schemas(self) -> bool:
        """Whether the contestant creates missing schemas."""
        return self.contestant.kind == "ours"

    # -- through the library --

    def environment(self, schema: str | None = None) -> dict[str, str]:
        """Return the environment variables for the library.

        All defaults apply, except that ours, whose threads share one pool, gets one connection per thread, at most 16.
        """
        if self.contestant.name == "memory":
            return {"PERSISTENCE_MODULE": "eventsourcing.popo"}
        if self.contestant.home == "native":
            return self._native_environment(schema)
        environment = {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": self.url}
        if not self.is_sqlite:
            environment["SQLALCHEMY_URL"] = f"postgresql+{self.contestant.driver}:{self.url.partition(':')[2]}"
        if schema is not None:
            environment["SQLALCHEMY_SCHEMA"] = schema
        if self.contestant.kind == "ours" and self._threads > 1:
            environment["SQLALCHEMY_POOL_SIZE"] = str(min(self._threads, _CONNECTIONS))
            environment["SQLALCHEMY_MAX_OVERFLOW"] = "0"
        return environment

    def _native_environment(self, schema: str | None) -> dict[str, str]:
        if self.is_sqlite:
            return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": self.file}
        environment = {"PERSISTENCE_MODULE": "eventsourcing.postgres", "POSTGRES_SCHEMA": schema or ""}
        return environment | {f"POSTGRES_{key.upper()}": value for key, value in self.connection_parameters().items()}

    def factory(self, name: str = "", schema: str | None = None, **settings: str) -> InfrastructureFactory[Any]:
        """Return a new factory for an application; `settings` are further variables in lower case."""
        further = {key.upper(): value for key, value in settings.items()}
        return InfrastructureFactory.construct(Environment(name, self.environment(schema) | further))

    # -- without the library --

    def connection_parameters(self) -> dict[str, str]:
        """Return the parts of a PostgreSQL URL by libpq's names."""
        parts = {
            "host": self._parts.hostname,
            "port": str(self._parts.port or 5432),
            "user": self._parts.username,
            "password": self._parts.password,
            "dbname": self._parts.path.removeprefix("/"),
        }
        # The library requires a password even if the server does not.
        return {key: unquote(value or "") for key, value in parts.items()}

    def connect(self) -> Any:
        """Return a new autocommit connection of the contestant's driver."""
        if self.is_sqlite:
            connection = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            return connection
        parameters = {key: value for key, value in self.connection_parameters().items() if value}
        if self.contestant.driver == "psycopg":
            import psycopg

            return psycopg.connect(**cast("dict[str, Any]", parameters), autocommit=True)
        import psycopg2

        connection = psycopg2.connect(**cast("dict[str, Any]", parameters))
        connection.autocommit = True
        return connection

    def query(self, statement: str, *parameters: Any) -> Any:
        """Run a statement on a connection kept for this purpose; return its rows, or None."""
        if self._raw is None:
            self._raw = self.connect()
        cursor = self._raw.cursor()
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else None

    def make_schema(self, name: str) -> None:
        """Create a schema, unless the contestant does so by itself."""
        if not (self.has_own_schemas or self.is_sqlite):
            self.query(f'CREATE SCHEMA IF NOT EXISTS "{name}"')

    def connection_count(self) -> int:
        """Return the number of open connections to the database, without that of :meth:`query`."""
        rows = self.query(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(rows[0][0])

    def close(self) -> None:
        """Close the connection of :meth:`query`."""
        if self._raw is not None:
            self._raw.close()
            self._raw = None

"""Administer and observe a PostgreSQL database."""

from __future__ import annotations

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from tenancy.testing.postgresql import Postgres
from tests.support.activity import wait_until_ended
from tests.support.deadlines import wait_until


class Database:
    """A PostgreSQL database, seen through the administrator's connections: a new one for each query."""

    def __init__(self, server: Postgres, name: str) -> None:
        self._server = server
        self.name = name
        self.engine: Engine = create_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)

    def url(self, driver: str = "psycopg2") -> str:
        """Return the URL for a driver."""
        return self._server.url(self.name, driver)

    def scalar(self, statement: str, **parameters: object) -> int:
        """Run a statement and return the selected number."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(statement), parameters).scalar() or 0)

    def terminate(self, which: str = "true") -> int:
        """Terminate server processes of this database by a condition on pg_stat_activity; return their number."""
        condition = f"datname = current_database() AND pid <> pg_backend_pid() AND ({which})"
        with self.engine.connect() as connection:
            pids = list(connection.scalars(text(f"SELECT pid FROM pg_stat_activity WHERE {condition}")))
            for pid in pids:
                connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        wait_until(
            lambda: not self.scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:pids)", pids=pids),
            "the server processes end",
        )
        wait_until_ended(pids)
        return len(pids)

    def wait_for_blocked(self, count: int = 1) -> None:
        """Wait until `count` server processes wait for a lock."""
        wait_until(lambda: self.blocked() == count, f"{count} server processes wait for a lock")

    def blocked(self) -> int:
        """Return the number of server processes that wait for a lock."""
        return self.scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

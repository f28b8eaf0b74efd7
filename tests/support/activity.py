"""Observe a database's connections, as the PostgreSQL server reports them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import psutil
import sqlalchemy as sa

from tenancy.testing.postgresql import Postgres
from tests.support.deadlines import DEADLINE_SECONDS, wait_until

CLIENTS = "FROM pg_stat_activity WHERE datname = :database AND backend_type = 'client backend'"


class Activity:
    """Queries the server through a connection to another database. Use it as a context manager."""

    def __init__(self, server: Postgres, database: str) -> None:
        self._engine = sa.create_engine(server.url(), isolation_level="AUTOCOMMIT")
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._engine.dispose()

    def connections(self) -> int:
        """Return the number of connections."""
        return int(self._ask(f"SELECT count(*) {CLIENTS}"))

    def blocked(self) -> int:
        """Return the number of connections that wait for a lock."""
        return int(self._ask(f"SELECT count(*) {CLIENTS} AND wait_event_type = 'Lock'"))

    def wait_until_none(self, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until the server has no connection left. It notices a closed one slightly later than the client."""
        wait_until(lambda: self.connections() == 0, "no connection is left", seconds)

    def terminate(self) -> None:
        """Terminate all connections, and return when they are gone."""
        pids = self._ask(f"SELECT coalesce(array_agg(pid), '{{}}') {CLIENTS}")
        self._ask("SELECT count(pg_terminate_backend(pid)) FROM unnest(:pids) AS pid", pids=pids)
        are_gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY (:pids))"
        wait_until(lambda: self._ask(are_gone, pids=pids), "connections are terminated")
        wait_until_ended(pids)

    @contextmanager
    def watch(self) -> Iterator[list[int]]:
        """Count the connections repeatedly during the block; yield the list of counts."""
        counts = [self.connections()]
        stopping = threading.Event()

        def count() -> None:
            while not stopping.is_set():
                counts.append(self.connections())
                time.sleep(0.002)

        thread = threading.Thread(target=count, name="activity")
        thread.start()
        try:
            yield counts
        finally:
            stopping.set()
            thread.join()

    def _ask(self, statement: str, **parameters: Any) -> Any:
        with self._engine.connect() as connection:
            return connection.scalar(sa.text(statement), {"database": self._database, **parameters})


def wait_until_ended(pids: Iterable[int]) -> None:
    """Wait until these processes of a local server have ended. The server forgets a process just before it closes the
    connection, which still looks alive in between.
    """
    wait_until(lambda: not any(map(_is_server_process, pids)), "the server processes have ended")


def _is_server_process(pid: int) -> bool:
    try:
        return psutil.Process(pid).name().startswith("postgres")
    except psutil.NoSuchProcess:
        return False

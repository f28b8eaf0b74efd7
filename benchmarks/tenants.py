"""`python -m benchmarks.tenants`: measure a large fleet. docs/limits.md has the figures of a run.

Creates tenants, lists them, opens each one and records an event, and purges them all; on a new server, or in a new
database of a given one. Not a comparison: no peer has fleets.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from eventsourcing.application import Application
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import create_engine, text
from tenancy import Tenancy

from benchmarks.databases import Databases
from benchmarks.school import School


class Kennels(School):
    """The second application of each tenant."""


APPLICATIONS: tuple[type[Application[Any]], ...] = (School, Kennels)


class Fleet:
    """Measures step by step, and keeps a line per step."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._slugs = [f"tenant-{number:06}" for number in range(count)]
        self._observer = create_engine(url, isolation_level="AUTOCOMMIT")
        self.lines: list[tuple[str, str]] = []

    def measure(self) -> None:
        """Run all steps."""
        tenants = Tenancy(applications=APPLICATIONS, env={"SQLALCHEMY_URL": self._url})
        count = len(self._slugs)
        self._say("before", self._database())
        with self._timed(f"create {count:,} tenants, {len(APPLICATIONS)} applications each", count):
            for _ in track(tenants.create_many(self._slugs), "create", count, transient=True):
                pass
        self._say("then", self._database())
        with self._timed("list all", 1):
            assert len(tenants.list()) == count
        with self._timed("create one more", 1):
            tenants.create("one-more")
        resident = psutil.Process().memory_info().rss
        with self._timed("open each and record one event", count):
            for slug in track(self._slugs, "open", transient=True):
                tenants[slug].get(School).register("Fido")
        with self._timed("again, cached or not", count):
            for slug in track(self._slugs, "again", transient=True):
                tenants[slug].get(School).register("Rex")
        grown = (psutil.Process().memory_info().rss - resident) / 2**20
        threads = psutil.Process().num_threads()
        self._say("this process", f"grew by {grown:,.0f} MiB, {threads} threads, {self._connections()}")
        with self._timed("purge all", count):
            for _ in track(tenants.purge_many([*self._slugs, "one-more"]), "purge", count, transient=True):
                pass
        self._say("left", self._database())
        tenants.close()
        self._observer.dispose()

    @contextmanager
    def _timed(self, what: str, count: int) -> Iterator[None]:
        begin = time.monotonic()
        yield
        seconds = time.monotonic() - begin
        each = f", {seconds / count * 1000:.2f} ms each" if count > 1 else ""
        self._say(what, f"{seconds:,.3f} s{each}")

    def _say(self, what: str, found: str) -> None:
        self.lines.append((what, found))

    def _ask(self, query: str) -> Any:
        with self._observer.connect() as connection:
            return connection.execute(text(query)).scalar()

    def _database(self) -> str:
        if not self._url.startswith("postgresql"):
            return f"{self._ask('SELECT count(*) FROM sqlite_master'):,} rows of the catalog, {self._size()} MiB"
        relations = self._ask("SELECT count(*) FROM pg_class WHERE relnamespace > 16383")
        return f"{relations:,} relations, {self._size()} MiB"

    def _size(self) -> str:
        if self._url.startswith("postgresql"):
            return f"{self._ask('SELECT pg_database_size(current_database())') / 2**20:,.0f}"
        return f"{os.path.getsize(self._url.removeprefix('sqlite:///')) / 2**20:,.0f}"  # noqa: PTH202 (as shell users do)

    def _connections(self) -> str:
        if not self._url.startswith("postgresql"):
            return "one file"
        pids = (
            "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        memory = [_private_memory(pid) for pid in self._ask(pids) or ()]
        return f"{len(memory)} connections, {sum(memory):,.0f} MiB private memory of their server processes"


def _private_memory(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_full_info().uss) / 2**20
    except psutil.Error:
        return 0.0  # the server is on another machine


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tenants", description=__doc__)
    parser.add_argument("--tenants", type=int, default=10_000, metavar="N", help="number of tenants (%(default)s)")
    parser.add_argument("--database", default="embedded", help="embedded, sqlite, or the URL of a server (%(default)s)")
    arguments = parser.parse_args()
    with Databases(arguments.database if "://" in arguments.database else None) as server:
        if arguments.database != "sqlite":
            server.start_server()
        with server.fresh("sqlite" if arguments.database == "sqlite" else "postgresql") as url:
            fleet = Fleet(url, arguments.tenants)
            fleet.measure()
    table = Table("step", "found", title=f"{arguments.tenants:,} tenants")
    for line in fleet.lines:
        table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    main()

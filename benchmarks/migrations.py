"""`python -m benchmarks.migrations`: measure migrations of a large fleet. docs/performance.md has the figures of a run.

Creates tenants, gives their tracking tables the type that the published package gave them, and migrates them; on a new
server, or in a new database of a given one. Not a comparison: no peer has fleets.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from eventsourcing.application import ProcessingEvent
from eventsourcing.system import ProcessApplication
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import create_engine
from tenancy import Tenancy
from tenancy.operations.jobs import TenantSelection
from tenancy.operations.migrations import status_of

from benchmarks.databases import Databases

# The statements for one transaction: each changed table takes several of the locks that all clients share.
_AT_ONCE = 100


class Reports(ProcessApplication[UUID]):
    """An application with a tracking table."""

    def policy(self, domain_event: Any, processing_event: ProcessingEvent[UUID]) -> None:
        """Record nothing."""


def fleet() -> Tenancy:
    """Return the fleet, for processes."""
    return Tenancy(applications=[Reports])


class Migrations:
    """Measures step by step, and keeps a line per step."""

    def __init__(self, url: str, count: int, processes: int) -> None:
        self._url = url
        self._slugs = [f"tenant-{number:06}" for number in range(count)]
        self._processes = processes
        self.lines: list[tuple[str, str]] = []

    def measure(self) -> None:
        """Run all steps."""
        tenants = Tenancy(applications=[Reports], env={"SQLALCHEMY_URL": self._url})
        count = len(self._slugs)
        for _ in track(tenants.create_many(self._slugs), "create", count, transient=True):
            pass
        self._age(tenants)
        with self._timed("status", 1):
            assert len(status_of(tenants.fleet).behind) == count
        some = count // 2
        with self._timed(f"migrate {some:,} in this process", some):
            assert tenants.migrate(tenants=TenantSelection(limit=some)).counts.done == some
        rest = count - some
        with self._timed(f"tenancy migrate: {rest:,} by {self._processes} processes, with their start", rest):
            self._run("migrate", "--processes", f"{self._processes}")
        assert not status_of(tenants.fleet).behind
        for _ in range(3):
            with self._timed(f"migrate {count:,} that are current, in this process", 1):
                assert tenants.migrate().job is None
        with self._timed("tenancy migrate, with its start", 1):
            self._run("migrate")
        with self._timed("tenancy list --status archived, for comparison", 1):
            self._run("list", "--status", "archived")
        tenants.close()

    def _age(self, tenants: Tenancy) -> None:
        """Make the tables those of version 0."""
        names = [
            str(spec.name)
            for tenant in tenants.list()
            for spec in tenants.fleet.inventory.specs(tenant.placement, tenants.application_specs())
            if spec.kind == "tracking"
        ]
        engine = create_engine(self._url)
        for start in range(0, len(names), _AT_ONCE):
            with engine.begin() as connection:
                for name in names[start : start + _AT_ONCE]:
                    connection.exec_driver_sql(f"ALTER TABLE {name} ALTER application_name TYPE varchar(32)")
        with engine.begin() as connection:
            connection.exec_driver_sql(
                """UPDATE tenancy.tenants SET versions = jsonb_set(versions::jsonb, '{tables}', '0')::json"""
            )
        engine.dispose()

    def _run(self, *arguments: str) -> None:
        environment = {**os.environ, "SQLALCHEMY_URL": self._url, "TENANCY_APP": "benchmarks.migrations:fleet"}
        subprocess.run([sys.executable, "-m", "tenancy", *arguments], check=True, env=environment, capture_output=True)

    @contextmanager
    def _timed(self, what: str, count: int) -> Iterator[None]:
        begin, cpu = time.monotonic(), time.process_time()
        yield
        seconds, cpu = time.monotonic() - begin, time.process_time() - cpu
        each = f", {seconds / count * 1000:.2f} ms each" if count > 1 else ""
        self.lines.append((what, f"{seconds:,.3f} s{each}; {cpu:,.3f} s of this process's CPU"))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.migrations", description=__doc__)
    parser.add_argument("--tenants", type=int, default=1_000, metavar="N", help="number of tenants (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="number of processes (%(default)s)")
    parser.add_argument("--database", default="embedded", help="embedded, or the URL of a server (%(default)s)")
    arguments = parser.parse_args()
    with Databases(arguments.database if "://" in arguments.database else None) as server:
        server.start_server()
        with server.fresh("postgresql") as url:
            migrations = Migrations(url, arguments.tenants, arguments.processes)
            migrations.measure()
    table = Table("step", "found", title=f"{arguments.tenants:,} tenants")
    for line in migrations.lines:
        table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    main()

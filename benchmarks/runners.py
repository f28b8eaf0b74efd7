"""The runner beside those of the library: the same system for many tenants, each measured in a process of its own.

    python -m benchmarks.runners                       1, 10 and 50 tenants, all three runners
    python -m benchmarks.runners --alone 100,1000      the runner of this project alone

Every tenant has three applications: one is written to, one makes an event of each of its events, and one does so with
those. `backlog` is how fast events are followed that were there before; `live` how fast when two threads write
meanwhile, writing included; `lag` how long one event of an otherwise idle tenant takes through both followers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any, cast
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.system import MultiThreadedRunner, NewMultiThreadedRunner, ProcessApplication, System
from eventsourcing_sqlalchemy.positions import read_positions
from tenancy import Tenancy
from tenancy.demo.server import find_postgres
from tenancy.runner.pipes import Pipe, Pipes

EVENTS = 6000
LIBRARY = {"MultiThreadedRunner": MultiThreadedRunner, "NewMultiThreadedRunner": NewMultiThreadedRunner}
OURS = "tenancy"


class Source(Application[UUID]):
    """Is written to."""

    def write(self) -> None:
        """Record an event."""
        self.save(Aggregate())


class Copies(ProcessApplication[UUID]):
    """Makes an event of each event."""

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Make one."""
        processing_event.collect_events(Aggregate())


class Totals(ProcessApplication[UUID]):
    """Makes an event of each event of the copies."""

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        """Make one."""
        processing_event.collect_events(Aggregate())


SYSTEM = System(pipes=[[Source, Copies, Totals]])


class _Measured:
    """One runner at work for a fleet."""

    def __init__(self, tenants: Tenancy, kind: str, workers: int) -> None:
        self.tenants = tenants
        self.kind = kind
        self._workers = workers
        self.slugs = sorted(tenants.slugs())
        pipe = Pipe("Copies", "Totals")
        pipes = Pipes(tenants.blueprints())
        self._tables = [pipes.tracking_table(pipe, tenant.placement, None) for tenant in tenants.list()]
        self.source: Callable[[str], Source] = lambda slug: tenants[slug].get(Source)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it inside of the block."""
        if self.kind == OURS:
            with self.tenants.runner(workers=self._workers):
                yield
            return
        with ExitStack() as stack:
            runners: dict[str, Any] = {
                slug: stack.enter_context(LIBRARY[self.kind](SYSTEM, env=self.tenants.env(slug))) for slug in self.slugs
            }
            self.source = lambda slug: cast("Source", runners[slug].get(Source))
            yield

    def wait(self, total: int) -> None:
        """Return when that many events have come to the end of the pipes, in all tenants together."""
        datastore = self.tenants.places.datastore
        deadline = time.monotonic() + 600
        while sum(each.get("Copies", 0) for each in read_positions(datastore, self._tables).values()) < total:
            if time.monotonic() > deadline:
                sys.exit(f"{self.kind} has not followed {total} events in time.")
            time.sleep(0.02)


def measure(kind: str, count: int, workers: int, url: str) -> dict[str, Any]:
    """Return the figures of one runner with that many tenants."""
    each = max(2, EVENTS // count)
    env = {"SQLALCHEMY_URL": url}
    if kind == OURS:
        env |= {"SQLALCHEMY_POOL_SIZE": str(workers), "SQLALCHEMY_MAX_OVERFLOW": "0"}
    with Tenancy(system=SYSTEM, env=env) as tenants:
        for _ in tenants.create_many(f"t{number}" for number in range(count)):
            pass
        measured = _Measured(tenants, kind, workers)
        for slug in measured.slugs:
            source = tenants[slug].get(Source)
            source.save(*[Aggregate() for _ in range(each - 1)])
        total = each * count
        peak = _Peak(url)
        with peak.sampled(), measured.running():
            began = time.monotonic()
            for slug in measured.slugs:
                measured.source(slug).write()  # the library's runners look when they are prompted
            measured.wait(total)
            backlog = total / (time.monotonic() - began)
            began = time.monotonic()
            live_each = max(1, each // 4)
            threads = [
                threading.Thread(target=_write, args=(measured, measured.slugs[half::2], live_each)) for half in (0, 1)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            measured.wait(total + live_each * count)
            live = live_each * count / (time.monotonic() - began)
            total += live_each * count
            lags = []
            for number in range(20):
                began = time.monotonic()
                measured.source(measured.slugs[number % count]).write()
                total += 1
                measured.wait(total)
                lags.append(time.monotonic() - began)
        return {
            "runner": f"{kind}, {workers} workers" if kind == OURS else kind,
            "tenants": count,
            "backlog": round(2 * backlog),
            "live": round(2 * live),
            "lag_ms": round(1000 * median(lags)),
            "threads": peak.threads,
            "connections": peak.connections,
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }


def _write(measured: _Measured, slugs: Sequence[str], each: int) -> None:
    for _ in range(each):
        for slug in slugs:
            measured.source(slug).write()


class _Peak:
    """The most threads of this process and connections to the database that were seen, less those that look."""

    def __init__(self, url: str) -> None:
        self.threads = self.connections = 0
        self._url = url

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Look now and then inside of the block."""
        stopping = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stopping,))
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def _sample(self, stopping: threading.Event) -> None:
        engine = sa.create_engine(self._url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        count = sa.text(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        with engine.connect() as connection:
            while not stopping.wait(0.1):
                self.threads = max(self.threads, threading.active_count() - 1)
                self.connections = max(self.connections, (connection.scalar(count) or 0) - 1)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def main() -> None:
    """Measure what was asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=_numbers, default=[1, 10, 50], metavar="N,...")
    parser.add_argument("--alone", type=_numbers, default=[], metavar="N,...")
    parser.add_argument("--workers", type=_numbers, default=[4, 16], metavar="N,...")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, count, workers, url = arguments.one
        print(json.dumps(measure(kind, int(count), int(workers), url)))
        return
    ours = [(OURS, workers) for workers in arguments.workers]
    cases = [(*each, count) for count in arguments.tenants for each in (*ours, *((kind, 0) for kind in LIBRARY))]
    cases += [(*each, count) for count in arguments.alone for each in ours]
    header = ("runner", "tenants", "backlog", "live", "lag_ms", "threads", "connections", "megabytes")
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for kind, workers, count in cases:
        server = find_postgres()
        if server is None:
            sys.exit("There is no PostgreSQL to start.")
        with server:
            command = [
                sys.executable,
                "-m",
                "benchmarks.runners",
                "--one",
                kind,
                str(count),
                str(workers),
                server.url(),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"| {kind} | {count} | failed: {(done.stderr.strip().splitlines() or ['?'])[-1]} |")
            continue
        figures = json.loads(done.stdout.splitlines()[-1])
        print("| " + " | ".join(str(figures[name]) for name in header) + " |", flush=True)


if __name__ == "__main__":
    main()

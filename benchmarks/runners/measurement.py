"""Measure a runner's rate and resources, in the same way for every contestant."""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from statistics import median
from typing import Any

from benchmarks.runners.system import EVENTS_PER_EVENT, Source

CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
_SAMPLES = 20  # of the latency


class Contestant(ABC):
    """A runner with its tenants."""

    name: str
    slugs: Sequence[str]

    @abstractmethod
    def source(self, slug: str) -> Source:
        """Return the source application of a tenant; while the runner runs, the runner's own instance."""

    @abstractmethod
    def running(self) -> AbstractContextManager[Any]:
        """Run the runner during the block."""

    @abstractmethod
    def followed(self) -> int:
        """Return how many events have passed all followers, in all tenants in total."""

    @abstractmethod
    def connections(self) -> int:
        """Return the number of connections to the database, without the querying one."""

    def wait(self, total: int) -> None:
        """Wait until `total` events have passed all followers."""
        deadline = time.monotonic() + 900
        while (followed := self.followed()) < total:
            if time.monotonic() > deadline:
                sys.exit(f"{self.name} timed out after {followed} of {total} events.")
            time.sleep(0.02)


def measure(contestant: Contestant, events: int) -> dict[str, Any]:
    """Measure a runner with a backlog of `events` in all tenants in total, then with a quarter more written live."""
    slugs = contestant.slugs
    each = max(2, events // len(slugs))
    for slug in slugs:
        contestant.source(slug).write(each - 1)
    total = each * len(slugs)
    peak = _Peak(contestant)
    with peak.sampled(), contestant.running():
        began = time.monotonic()
        for slug in slugs:
            contestant.source(slug).write()  # the library's runners pull when prompted
        contestant.wait(total)
        backlog = total / (time.monotonic() - began)
        began = time.monotonic()
        live_each = max(1, each // 4)
        threads = [threading.Thread(target=_write, args=(contestant, slugs[half::2], live_each)) for half in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        written = live_each * len(slugs)
        total += written
        contestant.wait(total)
        live = written / (time.monotonic() - began)
        lags = []
        for number in range(_SAMPLES):
            began = time.monotonic()
            contestant.source(slugs[number % len(slugs)]).write()
            total += 1
            contestant.wait(total)
            lags.append(time.monotonic() - began)
    return {
        "runner": contestant.name,
        "tenants": len(slugs),
        "backlog": round(EVENTS_PER_EVENT * backlog),
        "live": round(EVENTS_PER_EVENT * live),
        "lag_ms": round(1000 * median(lags)),
        "threads": peak.threads,
        "connections": peak.connections,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def show(figures: dict[str, Any]) -> None:
    """Print figures as JSON for the parent process."""
    print(json.dumps(figures))


def _write(contestant: Contestant, slugs: Sequence[str], each: int) -> None:
    for _ in range(each):
        for slug in slugs:
            contestant.source(slug).write()


class _Peak:
    """Peak numbers of threads and database connections, without the sampling ones."""

    def __init__(self, contestant: Contestant) -> None:
        self.threads = self.connections = 0
        self._contestant = contestant

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample periodically during the block."""
        stopping = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stopping,))
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def _sample(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.1):
            self.threads = max(self.threads, threading.active_count() - 1)
            self.connections = max(self.connections, self._contestant.connections())

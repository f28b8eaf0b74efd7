"""How fast a runner follows, and what it takes to do so: the same for every contestant."""

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
_LOOKS = 20  # for the latency


class Contestant(ABC):
    """Tenants with a runner."""

    name: str
    slugs: Sequence[str]

    @abstractmethod
    def source(self, slug: str) -> Source:
        """Return the application of a tenant that is written to; while the runner runs, that of the runner."""

    @abstractmethod
    def running(self) -> AbstractContextManager[Any]:
        """Run the runner inside of the block."""

    @abstractmethod
    def followed(self) -> int:
        """Return how many events have come to the end of the pipes, in all tenants together."""

    @abstractmethod
    def connections(self) -> int:
        """Return how many connections to the database there are, less the one that asks."""

    def wait(self, total: int) -> None:
        """Return when that many events have come to the end of the pipes."""
        deadline = time.monotonic() + 900
        while (followed := self.followed()) < total:
            if time.monotonic() > deadline:
                sys.exit(f"{self.name} has followed {followed} events of {total} in time.")
            time.sleep(0.02)


def measure(contestant: Contestant, events: int) -> dict[str, Any]:
    """Return the figures of a runner whose tenants have that many events together, and get a quarter of it more."""
    slugs = contestant.slugs
    each = max(2, events // len(slugs))
    for slug in slugs:
        contestant.source(slug).write(each - 1)
    total = each * len(slugs)
    peak = _Peak(contestant)
    with peak.sampled(), contestant.running():
        began = time.monotonic()
        for slug in slugs:
            contestant.source(slug).write()  # the library's runners look when they are prompted
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
        for number in range(_LOOKS):
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
    """Print figures for the process that has asked for them."""
    print(json.dumps(figures))


def _write(contestant: Contestant, slugs: Sequence[str], each: int) -> None:
    for _ in range(each):
        for slug in slugs:
            contestant.source(slug).write()


class _Peak:
    """The most threads of this process and connections to the database that were seen, less those that look."""

    def __init__(self, contestant: Contestant) -> None:
        self.threads = self.connections = 0
        self._contestant = contestant

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
        while not stopping.wait(0.1):
            self.threads = max(self.threads, threading.active_count() - 1)
            self.connections = max(self.connections, self._contestant.connections())

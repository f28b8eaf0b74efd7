"""Measure this project's runner, or the library's on this project's tables.

python -m benchmarks.runners.ours KIND TENANTS WORKERS EVENTS URL
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import sqlalchemy as sa
from eventsourcing_sqlalchemy.high_water import read_positions
from tenancy import Tenancy
from tenancy.following.pipes import Pipe, Pipes

from benchmarks.runners.measurement import CONNECTIONS, Contestant, measure, show
from benchmarks.runners.system import LIBRARY, SYSTEM, Source


class Fleet(Contestant):
    """Tenants of a `Tenancy`, with the runner named `kind`."""

    def __init__(self, tenants: Tenancy, kind: str, workers: int, url: str) -> None:
        self.name = kind if kind in LIBRARY else f"{kind}, {workers} workers"
        self.slugs = sorted(tenants.slugs())
        self._tenants = tenants
        self._kind = kind
        self._workers = workers
        self._source: Callable[[str], Source] = lambda slug: tenants[slug].get(Source)
        pipe, pipes = Pipe("Copies", "Totals"), Pipes(tenants.application_specs())
        tables = [pipes.tracking_table(pipe, tenant.placement, None) for tenant in tenants.list()]
        self._tables = [table for table in tables if table is not None]
        self._observer = sa.create_engine(url, pool_size=1, isolation_level="AUTOCOMMIT")

    def source(self, slug: str) -> Source:
        return self._source(slug)

    @contextmanager
    def running(self) -> Iterator[None]:
        if self._kind not in LIBRARY:
            with self._tenants.runner(workers=self._workers):
                yield
            return
        with ExitStack() as stack:
            runners: dict[str, Any] = {
                slug: stack.enter_context(LIBRARY[self._kind](SYSTEM, env=self._tenants.env(slug)))
                for slug in self.slugs
            }
            self._source = lambda slug: cast("Source", runners[slug].get(Source))
            yield

    def followed(self) -> int:
        read = read_positions(self._tenants.fleet.shard.datastore, self._tables)
        return sum(each.get("Copies", 0) for each in read.values())

    def connections(self) -> int:
        with self._observer.connect() as connection:
            return connection.scalar(sa.text(CONNECTIONS)) or 0


def main(kind: str, count: int, workers: int, events: int, url: str) -> None:
    """Measure one runner with `count` tenants."""
    env = {"SQLALCHEMY_URL": url}
    if kind not in LIBRARY:
        env |= {"SQLALCHEMY_POOL_SIZE": str(workers), "SQLALCHEMY_MAX_OVERFLOW": "0"}
    with Tenancy(system=SYSTEM, env=env) as tenants:
        for _ in tenants.create_many(f"t{number}" for number in range(count)):
            pass
        show(measure(Fleet(tenants, kind, workers, url), events))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])

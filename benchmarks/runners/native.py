"""Measure the library's runners on its own persistence, with a schema per tenant. Imports the library only.

python -m benchmarks.runners.native KIND TENANTS WORKERS EVENTS URL
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import psycopg

from benchmarks.runners.measurement import CONNECTIONS, Contestant, measure, show
from benchmarks.runners.system import LIBRARY, SYSTEM, Source


class Schemas(Contestant):
    """Tenants without `Tenancy`: an environment each."""

    def __init__(self, kind: str, count: int, url: str) -> None:
        self.name = f"{kind}, native"
        self.slugs = [f"t{number}" for number in range(count)]
        self._kind = kind
        parts = urlsplit(url)
        self._common = {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": parts.path.removeprefix("/"),
            "POSTGRES_HOST": parts.hostname or "",
            "POSTGRES_PORT": str(parts.port or 5432),
            "POSTGRES_USER": parts.username or "",
            "POSTGRES_PASSWORD": parts.password or "-",
        }
        self._url = parts._replace(scheme="postgresql").geturl()
        self._sources: dict[str, Source] = {}
        self._observer = psycopg.connect(self._url, autocommit=True)
        self._following = psycopg.connect(self._url, autocommit=True)
        for slug in self.slugs:
            self._observer.execute(f'CREATE SCHEMA "{slug}"')

    def _env(self, slug: str) -> dict[str, str]:
        return {**self._common, "POSTGRES_SCHEMA": slug}

    def source(self, slug: str) -> Source:
        if slug in self._sources:
            return self._sources[slug]
        # Not kept open, because it would take connections from the runners.
        return _ClosedAfterwards(env=self._env(slug))

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            for slug in self.slugs:
                runner: Any = stack.enter_context(LIBRARY[self._kind](SYSTEM, env=self._env(slug)))
                self._sources[slug] = cast("Source", runner.get(Source))
            yield

    def followed(self) -> int:
        tables = " UNION ALL ".join(f'SELECT max(notification_id) FROM "{slug}".totals_tracking' for slug in self.slugs)
        statement = f"SELECT sum(max) FROM ({tables}) AS positions"
        return self._ask(self._following, statement)

    def connections(self) -> int:
        return self._ask(self._observer, CONNECTIONS) - 1

    def _ask(self, connection: psycopg.Connection[Any], statement: str) -> int:
        row = connection.execute(statement).fetchone()
        return int((row and row[0]) or 0)


class _ClosedAfterwards(Source):
    name = "Source"

    def write(self, count: int = 1) -> None:
        super().write(count)
        self.close()


def main(kind: str, count: int, events: int, url: str) -> None:
    """Measure one runner with `count` tenants."""
    show(measure(Schemas(kind, count, url), events))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[4]), sys.argv[5])

"""Pytest fixtures: a throw-away PostgreSQL database for each test, and a fleet in it.

Register them in conftest.py: `pytest_plugins = ["tenancy.testing.plugin"]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from eventsourcing.application import Application
from eventsourcing.system import System

from tenancy.tenancy import Tenancy
from tenancy.testing.postgresql import Postgres, find_postgres, fresh_database

__all__ = ["MakeTenancy", "make_tenancy", "no_purge_delay", "postgres_database", "postgres_server", "postgres_url"]


class MakeTenancy(Protocol):
    """The type of the fixture `make_tenancy`."""

    def __call__(self, *, applications: Iterable[type[Application[Any]]] = (), system: System | None = None) -> Tenancy:
        """Return a Tenancy that is closed after the test."""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Provide the server of the test session: TEST_POSTGRES_URL, or a new one."""
    # Without fsync: tests do not crash the machine, and run several times as fast.
    server = find_postgres(os.environ.get("TEST_POSTGRES_URL"), fsync=False)
    if server is None:
        pytest.fail(
            "No PostgreSQL found. Install eventsourcing-sqlalchemy[testing], or set TEST_POSTGRES_URL.", pytrace=False
        )
    with server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: Postgres) -> Iterator[str]:
    """Provide the name of an empty database; `postgres_server.url(postgres_database, driver)` is its URL."""
    with fresh_database(postgres_server) as name:
        yield name


@pytest.fixture
def postgres_url(postgres_server: Postgres, postgres_database: str) -> str:
    """Provide the URL of an empty database, for psycopg2."""
    return postgres_server.url(postgres_database)


@pytest.fixture
def no_purge_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Purge without waiting for other processes to notice."""
    monkeypatch.setattr("tenancy.lifecycle.purging.DELAY", 0.0)


@pytest.fixture
def make_tenancy(postgres_url: str, no_purge_delay: None) -> Iterator[MakeTenancy]:  # noqa: ARG001 (for its effect)
    """Provide a function that opens a Tenancy in an empty database; it purges without delay."""
    with ExitStack() as tenancies:

        def make(*, applications: Iterable[type[Application[Any]]] = (), system: System | None = None) -> Tenancy:
            tenancy = Tenancy(applications=applications, system=system, env={"SQLALCHEMY_URL": postgres_url})
            return tenancies.enter_context(tenancy)

        yield make

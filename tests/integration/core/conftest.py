"""A database shared by the tests of a process."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tenancy.testing.postgresql import Postgres, fresh_database
from tests.support.administrator import Database


@pytest.fixture(scope="session")
def database(postgres_server: Postgres) -> Iterator[Database]:
    """A PostgreSQL database for all tests of this process that use their own place."""
    with fresh_database(postgres_server) as name:
        yield Database(postgres_server, name)


@pytest.fixture
def place() -> str:
    """A unique name for a schema or prefix."""
    return f"place_{secrets.token_hex(4)}_"


@pytest.fixture(params=["psycopg2", "psycopg", "pg8000", "sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a database, for each driver."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    database: Database = request.getfixturevalue("database")
    return database.url(request.param)

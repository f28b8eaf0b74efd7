"""A database shared by the tests of a process, with administrator access to its server processes."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Iterator

import pytest

from tenancy.testing.postgresql import Postgres, fresh_database
from tests.support.administrator import Database
from tests.support.applications import Applications

DRIVERS = ("psycopg2", "psycopg", "pg8000")


@pytest.fixture(scope="session")
def database(postgres_server: Postgres) -> Iterator[Database]:
    """A database for all fault tests of this process; each uses its own schema."""
    with fresh_database(postgres_server) as name:
        yield Database(postgres_server, name)


@pytest.fixture
def place() -> str:
    """A unique name for a schema or prefix."""
    return f"faults_{secrets.token_hex(4)}_"


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """The name of a PostgreSQL driver."""
    return str(request.param)


@pytest.fixture
def applications(database: Database, driver: str) -> Iterator[Applications]:
    """Applications on the database, through the driver."""
    with Applications(database.url(driver)) as applications:
        yield applications


@pytest.fixture
def sockets_of_pg8000() -> Iterator[None]:
    """Collect the sockets that pg8000 does not close when a server that is starting up refuses the connection."""
    yield
    gc.collect()

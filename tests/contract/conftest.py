"""Databases for the contract tests: all share one PostgreSQL database, which is emptied for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from tenancy.testing.postgresql import Postgres, fresh_database
from tests.samples.training_school.invoices import own_engine
from tests.support.applications import Applications
from tests.support.places import PREFIX, SCHEMA, Place

# A lock that is still held is a fault, which must not become a hang.
REMOVE_SCHEMAS = """
DO $$
DECLARE schema text;
BEGIN
    PERFORM set_config('lock_timeout', '5s', true);
    FOR schema IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', schema);
    END LOOP;
    CREATE SCHEMA public;
END $$
"""


@pytest.fixture(scope="session")
def contract_database(postgres_server: Postgres) -> Iterator[str]:
    """The name of the database that all contract tests share."""
    with fresh_database(postgres_server) as name:
        yield name


@pytest.fixture(scope="session")
def contract_engine(postgres_server: Postgres, contract_database: str) -> Iterator[Engine]:
    """The tests' own engine, to inspect and remove tables."""
    engine = create_engine(postgres_server.url(contract_database), isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def empty_database(postgres_server: Postgres, contract_engine: Engine) -> Iterator[Postgres]:
    """The server, with only an empty schema `public` in `contract_database`."""
    yield postgres_server
    with contract_engine.connect() as connection:
        connection.execute(text(REMOVE_SCHEMAS))


@pytest.fixture
def place_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Place], str]:
    """Return a function that returns the URL of a place's database."""

    def url(place: Place) -> str:
        if place.database == "memory":
            return "sqlite://"
        if place.database == "file":
            return f"sqlite:///{tmp_path / 'test.db'}"
        server: Postgres = request.getfixturevalue("empty_database")
        return server.url(request.getfixturevalue("contract_database"), place.database)

    return url


@pytest.fixture
def place_variables(place_url: Callable[[Place], str]) -> Callable[[Place], dict[str, str]]:
    """Return a function that returns a place's environment variables."""
    return lambda place: place.variables(place_url(place))


@pytest.fixture(params=["file", "psycopg2", "psycopg"])
def database_url(request: pytest.FixtureRequest, place_url: Callable[[Place], str]) -> str:
    """The URL of an empty database, of each kind that several connections can share."""
    return place_url(Place(database=request.param))


@pytest.fixture
def apps(postgres_url: str) -> Iterator[Applications]:
    """Applications on an empty PostgreSQL database."""
    with Applications(postgres_url) as applications:
        yield applications


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The user's engine."""
    with own_engine(database_url) as engine:
        yield engine


@pytest.fixture
def variables(database_url: str) -> dict[str, str]:
    """The environment of an application in a place with difficult names."""
    schema = {"SQLALCHEMY_SCHEMA": SCHEMA.replace("{number}", "1")} if database_url.startswith("postgresql") else {}
    return {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "SQLALCHEMY_URL": database_url,
        "SQLALCHEMY_TABLE_PREFIX": PREFIX,
        **schema,
    }

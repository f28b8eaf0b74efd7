"""A fleet with one tenant, whose views have been followed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenancy import Tenancy
from tests.support.rebuilds import fill, ledger_fleet

PLACES = {
    "psycopg2": ("psycopg2", {}),
    "psycopg": ("psycopg", {}),
    "pg8000": ("pg8000", {}),
    "prefix": ("psycopg", {"TENANCY_SCHEMA": "", "TENANCY_TABLE_PREFIX": "{tenant}_"}),
    "schema of an application": ("psycopg2", {"TENANCY_SCHEMA": "{application}_{tenant}"}),
    "sqlite": ("sqlite", {}),
    "sqlite with another registry": ("sqlite", {}),
}


@pytest.fixture
def place(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """The URL of a database, and settings."""
    name = getattr(request, "param", "psycopg")
    driver, settings = PLACES[name]
    if driver == "sqlite":
        url = request.getfixturevalue("sqlite_url")
        return url, {"TENANCY_CONTROL_URL": f"{url}-registry"} if name != "sqlite" else {}
    server = request.getfixturevalue("postgres_server")
    return server.url(request.getfixturevalue("postgres_database"), driver), dict(settings)


@pytest.fixture
def tenants(place: tuple[str, dict[str, str]]) -> Iterator[Tenancy]:
    """A fleet with the tenant acme, who has ten dogs."""
    url, settings = place
    with ledger_fleet(url, settings) as fleet:
        fleet.create("acme")
        fill(fleet, "acme", 10)
        with fleet.runner() as runner:
            runner.wait("acme")
        yield fleet

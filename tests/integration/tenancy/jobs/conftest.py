"""A fleet with some tenants and the tables that count, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenancy import Tenancy
from tests.samples.counting_job import Kennel, create_tables

SLUGS = [f"tenant-{number}" for number in range(6)]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    """A fleet with six tenants."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}, code_version="7.1") as fleet:
        for _ in fleet.create_many(SLUGS):
            pass
        create_tables(fleet)
        yield fleet

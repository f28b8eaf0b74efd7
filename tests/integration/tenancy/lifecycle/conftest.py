"""Fleets on real databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from eventsourcing.application import Application

from eventsourcing_sqlalchemy.shared_resources import SharedResources
from tenancy import Tenancy
from tenancy.registry.cache import RegistryCache
from tests.samples.kennels import Kennel, Visits


class MakeFleet(Protocol):
    """Returns the Tenancy object of a process, by default with the sample applications."""

    def __call__(self, *applications: type[Application[Any]], **variables: object) -> Tenancy: ...


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database, on SQLite and on PostgreSQL."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def make_fleet() -> Iterator[Callable[..., Callable[..., Tenancy]]]:
    """Return a function that returns a MakeFleet for a database; all fleets are closed after the test."""
    with ExitStack() as resources:

        def on(url: str) -> MakeFleet:
            def make(*applications: type[Application[Any]], **variables: object) -> Tenancy:
                env = {"SQLALCHEMY_URL": url, **{key: str(value) for key, value in variables.items()}}
                return resources.enter_context(Tenancy(applications=applications or (Kennel, Visits), env=env))

            return make

        yield on


@pytest.fixture
def fleet(url: str, make_fleet: Callable[[str], MakeFleet]) -> MakeFleet:
    """Makes the Tenancy objects of processes on one database, on SQLite and on PostgreSQL."""
    return make_fleet(url)


@pytest.fixture
def tenants(fleet: MakeFleet) -> Tenancy:
    """A fleet on each database."""
    return fleet()


@pytest.fixture
def elsewhere(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tenancy]:
    """The same fleet in another process: with a registry cache of its own."""
    monkeypatch.setattr("tenancy.registry.cache.registry_caches", SharedResources(RegistryCache.close))
    with Tenancy(applications=list(tenants.applications.values()), env=tenants.settings.environment) as other:
        yield other

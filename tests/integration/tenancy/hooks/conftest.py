"""Fleets without hooks, in processes that share a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tenancy import Tenancy
from tests.samples.kennels import Kennel


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def make(url: str) -> Iterator[Callable[[], Tenancy]]:
    """Return a function that returns a fleet as another process has it: with a registry cache of its own."""
    with ExitStack() as fleets:

        def make_one() -> Tenancy:
            tenants = Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url})
            return fleets.enter_context(tenants)

        yield make_one


@pytest.fixture
def tenants(make: Callable[[], Tenancy]) -> Tenancy:
    """A fleet without tenants and hooks."""
    return make()


@pytest.fixture
def cold_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Query the registry at each look, so that all fleets of the process see changes at once."""
    monkeypatch.setattr("tenancy.registry.cache._QUERY_INTERVAL", 0.0)


@pytest.fixture
def kennel_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of effects outside of the database."""
    path = tmp_path / "kennel.log"
    monkeypatch.setenv("KENNEL_LOG", str(path))
    return path

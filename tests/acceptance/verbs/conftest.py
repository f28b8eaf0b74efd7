"""The command on empty databases, and on an existing fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenancy import Tenancy
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel


@pytest.fixture(params=["sqlite", "postgres"])
def tenancy(request: pytest.FixtureRequest) -> Command:
    """The command on an empty database."""
    return Command(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def quick(sqlite_url: str) -> Command:
    """The command on an empty SQLite database, for tests that do not depend on the database."""
    return Command(sqlite_url)


@pytest.fixture
def fleet(quick: Command) -> Iterator[Tenancy]:
    """The fleet of `quick`, as code sees it."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": quick.url}) as tenants:
        yield tenants


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command on an existing fleet, for calls that fail and change nothing."""
    command = Command(f"sqlite:///{tmp_path_factory.mktemp('settled') / 'fleet.db'}")
    command.ok("create", "acme", "globex", "off")
    command.ok("archive", "off")
    return command

"""A fleet on a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenancy import Tenancy
from tests.samples.kennels import Kennel


@pytest.fixture
def tenants(sqlite_url: str) -> Iterator[Tenancy]:
    """A fleet without tenants."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": sqlite_url}) as tenancy:
        yield tenancy

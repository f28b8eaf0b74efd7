"""A fleet on a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenancy import Tenancy
from tests.samples.shop import Shop


@pytest.fixture
def tenants(sqlite_url: str) -> Iterator[Tenancy]:
    """A fleet without tenants."""
    with Tenancy(applications=[Shop], env={"SQLALCHEMY_URL": sqlite_url}) as tenancy:
        yield tenancy

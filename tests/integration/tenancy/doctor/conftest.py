"""A fleet of two tenants, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenancy import Tenancy
from tests.support.examinations import fleet


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    """A fleet of two tenants."""
    with fleet(url) as tenants:
        list(tenants.create_many(["acme", "globex"]))
        yield tenants

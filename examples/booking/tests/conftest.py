"""The service under test. The plugin of tenancy.testing provides the database, the fleet and its tenants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from booking.web import make_app
from fastapi.testclient import TestClient

from tenancy import Tenancy


@pytest.fixture
def client(tenants: Tenancy) -> Iterator[TestClient]:
    """A client of the web service, whose requests go to the host for sign-ups unless a test says otherwise."""
    with TestClient(make_app(tenants, "example.com"), base_url="https://app.example.com") as client:
        yield client

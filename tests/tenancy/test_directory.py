"""What a process knows of the tenants, and when it has to ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from eventsourcing.application import Application

from tenancy import Tenancy
from tenancy.errors import TenantNotFound


class Shop(Application):
    """An application without anything."""


@pytest.fixture
def tenants(sqlite_url: str) -> Iterator[Tenancy]:
    with Tenancy(applications=[Shop], env={"SQLALCHEMY_URL": sqlite_url}) as tenancy:
        yield tenancy


def test_a_slug_of_before_a_rename_is_nobodys_however_often_it_is_asked_for(tenants: Tenancy) -> None:
    tenants.create("acme")
    assert tenants["acme"].slug == "acme"
    tenants.rename("acme", "globex")
    assert tenants["globex"].slug == "globex"
    for _ in range(3):
        with pytest.raises(TenantNotFound):
            tenants["acme"]

"""What the doctor says of fleets with projections, whose views have tables of their own, and what it mends there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application

from tenancy import Tenancy
from tenancy.doctor import Finding, examine, repair
from tenancy.errors import NotRegistered
from tests.acceptance.commands import Command
from tests.contract.counters_view import CountersView
from tests.tenancy.kennel import DogCounters, School
from tests.tenancy.shop import Shop


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def fleet(url: str, *applications: type[Application[Any]], view: type[Any] | None = CountersView) -> Tenancy:
    """Return a fleet, with a projection unless there is no view."""
    tenants = Tenancy(applications=[School, *applications], env={"SQLALCHEMY_URL": url})
    if view is not None:
        tenants.project(School, DogCounters, view)
    return tenants


def faults(findings: Sequence[Finding]) -> list[str]:
    """Return what is not good."""
    return [finding.what for finding in findings if finding.level != "ok"]


def tables(tenants: Tenancy, slug: str) -> list[str]:
    """Return the tables of a tenant, and of whose view they are."""
    return [str(name) for name in tenants.places.contents(tenants[slug], tenants.blueprints()).of("table")]


def drop(tenants: Tenancy, table: str) -> None:
    """Do so behind the back of the fleet."""
    with tenants.places.datastore.engine.begin() as connection:
        connection.execute(sa.text(f"DROP TABLE {table}"))


def counters(tenants: Tenancy, slug: str) -> str:
    """Return the table that a tenant's view has of its own."""
    (found,) = [name for name in tables(tenants, slug) if "_tracking_counters" in name]
    return found


# -- what is new in the code --


def test_a_new_projection_is_recorded_and_gets_its_tables(url: str) -> None:
    with fleet(url, view=None) as tenants:
        list(tenants.create_many(["acme", "globex"]))
    with fleet(url) as grown:
        assert faults(examine(grown))
        assert {each.level for each in repair(grown)} == {"ok"}
        assert faults(examine(grown)) == []
        assert list(repair(grown)) == []
        for slug in ("acme", "globex"):
            assert grown.projection(DogCounters, slug).view.get_created_event_counter() == 0


def test_a_new_application_is_recorded_beside_a_projection(url: str) -> None:
    with fleet(url) as tenants:
        tenants.create("acme")
    with fleet(url, Shop) as grown:
        assert "Recorded: Shop." in [each.what for each in repair(grown)]
        assert faults(examine(grown)) == []
        assert grown["acme"].get(Shop).open() == 1
    with fleet(url) as shrunk:
        assert list(repair(shrunk)) == []
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        assert {each.application for each in operator.blueprints()} == {"School", "DogCounters", "Shop"}


# -- code that is not there, or fails --


def lose_code(tenants: Tenancy) -> None:
    """Record of the view that its code is where this process finds none."""
    kept = [{**each.to_json(), "view": each.view and "nowhere:CountersView"} for each in tenants.blueprints()]
    tenants.registry.init({"applications": kept})


def test_without_the_code_of_a_view_no_tenant_is_begun(url: str) -> None:
    with fleet(url) as tenants:
        tenants.create("there")
        lose_code(tenants)
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        assert operator.create("there", exist_ok=True).status == "active"
        for create in (operator.create, lambda slug: list(operator.create_many([slug, "globex"]))):
            with pytest.raises(NotRegistered) as caught:
                create("acme")
            assert "DogCounters" in caught.value.message
            assert "nowhere:CountersView" in caught.value.message
            assert "--app" in caught.value.remedy
        assert operator.slugs() == ["there"]
    outcome = Command(url, app=None)("create", "acme", "globex")
    assert outcome.code != 0
    assert "--app" in outcome.err

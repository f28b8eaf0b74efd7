"""The contract of isolation strategies: a tenant's placement covers its own tables, and no other tenant's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import pytest

from eventsourcing_sqlalchemy.naming import TableName
from tenancy.isolation.strategy import allocate_placement, strategy_of
from tenancy.model.application_spec import ApplicationSpec
from tenancy.model.placement import Placement
from tenancy.settings import TenancySettings

LIMIT: Final = 63
DEFAULT_SCHEMA: Final = "public"
SPECS: Final = [
    ApplicationSpec(name, f"shop:{name}", ("events", "snapshots"), "uuid", creates_extra_tables=False)
    for name in ("Shop", "Reports")
]


@dataclass(frozen=True)
class Isolation:
    """The settings that choose a strategy."""

    url: str
    templates: dict[str, str] = field(default_factory=dict)

    def placement(self, number: int) -> Placement:
        """Return a new tenant's placement; all tenants have the same slug."""
        settings = TenancySettings.read({"SQLALCHEMY_URL": self.url, **self.templates})
        names = [spec.application for spec in SPECS]
        return allocate_placement(settings, "acme", UUID(int=number), names, LIMIT)


ISOLATIONS: Final = {
    "schema": Isolation("postgresql://user@host/db"),
    "schemas of applications": Isolation("postgresql://user@host/db", {"TENANCY_SCHEMA": "{application}_{tenant}"}),
    "prefix": Isolation("postgresql://user@host/db", {"TENANCY_TABLE_PREFIX": "{tenant}_"}),
    "prefix in a schema": Isolation(
        "postgresql://user@host/db", {"TENANCY_SCHEMA": "fleet", "TENANCY_TABLE_PREFIX": "{application}_{tenant}_"}
    ),
    "prefix without schemas": Isolation("sqlite:///fleet.db"),
}


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> Isolation:
    return ISOLATIONS[request.param]


def tables(placement: Placement) -> list[TableName]:
    return [table.name for spec in SPECS for table in spec.specs(placement, DEFAULT_SCHEMA)]


def test_a_placement_covers_its_own_tables(isolation: Isolation) -> None:
    placement = isolation.placement(1)
    assert all(strategy_of(placement).covers(placement, name, DEFAULT_SCHEMA) for name in tables(placement))


def test_a_placement_covers_no_table_of_another_tenant(isolation: Isolation) -> None:
    placement, other = isolation.placement(1), isolation.placement(2)
    assert not any(strategy_of(placement).covers(placement, name, DEFAULT_SCHEMA) for name in tables(other))


def test_a_placement_covers_no_table_outside_of_the_fleet(isolation: Isolation) -> None:
    placement = isolation.placement(1)
    names = [TableName(DEFAULT_SCHEMA, "shop_events"), TableName("shop", "events"), TableName("acme", "shop_events")]
    assert not any(strategy_of(placement).covers(placement, name, DEFAULT_SCHEMA) for name in names)


def test_a_placement_keeps_its_strategy(isolation: Isolation) -> None:
    placement = isolation.placement(1)
    assert strategy_of(placement).owns_schema is placement.owns_schema
    assert (strategy_of(placement).own_prefix(placement) == "") is placement.owns_schema

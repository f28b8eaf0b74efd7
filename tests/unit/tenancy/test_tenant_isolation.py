"""Placements: no two tables share a name, whatever the names of tenants and applications."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.naming import EVENTS_INDEX_SUFFIX
from tenancy.isolation.environment import PERSISTENCE_MODULE, variables
from tenancy.isolation.strategy import allocate_placement
from tenancy.model.application_spec import ApplicationSpec
from tenancy.model.placement import Placement
from tenancy.settings import TenancySettings

POSTGRESQL = "postgresql://user@host/db"
SQLITE = "sqlite:///fleet.db"
LIMIT = 63
TENANT = UUID(int=0x12345)
SLUGS = st.text(min_size=1, max_size=40)
IDS = st.uuids(version=4)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0{}"), min_size=1, max_size=12).filter(
    lambda name: len(name.lower().encode()) <= 24  # Longer names leave no room for a tenant, which another test covers.
)


def settings(url: str = POSTGRESQL, **variables: str) -> TenancySettings:
    return TenancySettings.read({"SQLALCHEMY_URL": url, **variables})


def application_spec(application: str, **fields: Any) -> ApplicationSpec:
    return ApplicationSpec(
        **{"application": application, "topic": "m:C", "tables": ("events",), "originator_id_type": "uuid"}
        | {"creates_extra_tables": False}
        | fields
    )


TEMPLATES = [
    (POSTGRESQL, {}),
    (POSTGRESQL, {"TENANCY_SCHEMA": "{tenant}_{application}"}),
    (POSTGRESQL, {"TENANCY_SCHEMA": "{application}_{tenant}"}),
    (POSTGRESQL, {"TENANCY_SCHEMA": "t_{tenant}"}),
    (POSTGRESQL, {"TENANCY_TABLE_PREFIX": "{tenant}_"}),
    (POSTGRESQL, {"TENANCY_SCHEMA": "{application}", "TENANCY_TABLE_PREFIX": "{tenant}_"}),
    (SQLITE, {}),
    (SQLITE, {"TENANCY_TABLE_PREFIX": "{application}.{tenant}."}),
]


@pytest.mark.parametrize(("url", "templates"), TEMPLATES)
@given(first=st.tuples(SLUGS, IDS), second=st.tuples(SLUGS, IDS), names=st.tuples(NAMES, NAMES))
def test_no_two_tenants_share_a_table(
    url: str,
    templates: dict[str, str],
    first: tuple[str, UUID],
    second: tuple[str, UUID],
    names: tuple[str, str],
) -> None:
    fleet = settings(url, **templates)
    limit = LIMIT if url == POSTGRESQL else None
    one, other = (
        allocate_placement(fleet, slug.casefold(), tenant_id, names, limit) for slug, tenant_id in (first, second)
    )
    if one == other:
        # The registry refuses the second. It takes equal readable parts and equal pieces of ids.
        assert first[1].int & 0xFFFFF == second[1].int & 0xFFFFF
        return
    for name in names:
        for other_name in names:
            table = (one.schema_of(name), one.prefix_of(name) + name.lower())
            other_table = (other.schema_of(other_name), other.prefix_of(other_name) + other_name.lower())
            assert table != other_table
            if table[0] == other_table[0] and "{application}" not in one.table_prefix:
                assert not other_table[1].startswith(one.prefix_of(name)), "a purge would take it"


@given(SLUGS, IDS, st.text(st.characters(codec="utf-8", exclude_characters="\0{}"), min_size=1, max_size=25))
def test_names_are_short_enough_for_the_database(slug: str, tenant_id: UUID, application: str) -> None:
    fleet = settings(TENANCY_SCHEMA="{tenant}_{application}", TENANCY_TABLE_PREFIX="{tenant}_")
    try:
        placement = allocate_placement(fleet, slug.casefold(), tenant_id, [application], LIMIT)
    except SettingsError as error:
        assert "leaves no room" in str(error)  # noqa: PT017 (most examples raise nothing)
        return
    schema = placement.schema_of(application)
    assert schema is not None
    assert len(schema.encode()) <= LIMIT
    table = f"{placement.prefix_of(application)}{application.lower()}_events{EVENTS_INDEX_SUFFIX}"
    assert len(table.encode()) <= LIMIT


@given(SLUGS, IDS, st.integers(1, 20))
def test_schema_is_never_the_servers(slug: str, tenant_id: UUID, room: int) -> None:
    application = "a" * (LIMIT - len("_events" + EVENTS_INDEX_SUFFIX) - len("_0000_") - room)
    fleet = settings(TENANCY_SCHEMA="{tenant}", TENANCY_TABLE_PREFIX="{tenant}_")
    placement = allocate_placement(fleet, slug.casefold(), tenant_id, [application], LIMIT)
    assert placement.schema is not None
    assert not placement.schema.startswith("pg_")
    assert placement.schema[0].isalpha()
    assert placement.schema not in ("tenancy", "public", "information_schema")


@pytest.mark.parametrize(
    ("slug", "label"),
    [("acme", "acme"), ("pg", "tpg"), ("7up", "t7up"), ("東京", "t"), ("x" * 50, "x" * 20), ("PG!", "tpg")],
)
def test_readable_part(slug: str, label: str) -> None:
    assert allocate_placement(settings(), slug.lower(), TENANT, [], LIMIT).schema == f"{label}_5t82"


def test_application_name_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(SettingsError, match="leaves no room"):
        allocate_placement(settings(TENANCY_TABLE_PREFIX="{tenant}_"), "acme", TENANT, ["a" * 40], LIMIT)


def test_schema_is_owned_if_only_the_tenant_uses_it() -> None:
    assert allocate_placement(settings(), "acme", TENANT, [], LIMIT).owns_schema
    assert not allocate_placement(settings(TENANCY_TABLE_PREFIX="{tenant}_"), "acme", TENANT, [], LIMIT).owns_schema
    shared = settings(TENANCY_SCHEMA="shop", TENANCY_TABLE_PREFIX="{tenant}_")
    assert not allocate_placement(shared, "acme", TENANT, [], LIMIT).owns_schema


def test_variables_name_everything_twice() -> None:
    result = variables(
        settings(TENANCY_CONTROL_SCHEMA="control"),
        Placement("acme_k3f9_{application}", "x_"),
        TENANT,
        [application_spec("Shop", tables=("events", "snapshots")), application_spec("Bar", originator_id_type="text")],
    )
    assert result["PERSISTENCE_MODULE"] == result["SHOP_PERSISTENCE_MODULE"] == PERSISTENCE_MODULE
    assert result["SHOP_SQLALCHEMY_SCHEMA"] == "acme_k3f9_shop"
    assert result["BAR_SQLALCHEMY_SCHEMA"] == "acme_k3f9_bar"
    assert result["SQLALCHEMY_SCHEMA"] == "acme_k3f9_{application}"
    assert result["BAR_SQLALCHEMY_TABLE_PREFIX"] == result["SQLALCHEMY_TABLE_PREFIX"] == "x_"
    assert result["CREATE_TABLE"] == result["SHOP_CREATE_TABLE"] == "no"
    assert result["TENANCY_TENANT"] == result["BAR_TENANCY_TENANT"] == str(TENANT)
    assert result["TENANCY_CONTROL_SCHEMA"] == "control"
    assert (result["SHOP_ORIGINATOR_ID_TYPE"], result["BAR_ORIGINATOR_ID_TYPE"]) == ("uuid", "text")
    assert (result["SHOP_IS_SNAPSHOTTING_ENABLED"], result["BAR_IS_SNAPSHOTTING_ENABLED"]) == ("yes", "no")


@pytest.mark.parametrize(
    ("given_variables", "control_url"),
    [
        ({}, ""),
        ({"TENANCY_CONTROL_URL": "postgresql://user@other/db"}, "postgresql+psycopg2://user@other/db"),
        ({"SQLALCHEMY_CONNECTION_CREATOR_TOPIC": "m:creator"}, ""),
        (
            {"SQLALCHEMY_CONNECTION_CREATOR_TOPIC": "m:creator", "TENANCY_CONTROL_URL": POSTGRESQL},
            "postgresql+psycopg2://user@host/db",
        ),
    ],
)
def test_variables_reach_the_same_registry(given_variables: dict[str, str], control_url: str) -> None:
    fleet = settings(**given_variables)
    result = variables(fleet, Placement("a", ""), TENANT, [])
    assert result["TENANCY_CONTROL_URL"] == control_url
    again = TenancySettings.read(result)
    assert (again.control_url, again.control_creator_topic) == (fleet.control_url, fleet.control_creator_topic)

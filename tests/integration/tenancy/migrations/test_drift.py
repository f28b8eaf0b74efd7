"""What doctor says of tables that differ from what the revisions create."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.operations.doctor import Finding, examine
from tests.integration.tenancy.migrations.conftest import NUMBERS
from tests.support.revisions import Revisions, migrate, own_table


def drift(tenants: Tenancy) -> list[Finding]:
    return [finding for finding in examine(tenants.fleet) if finding.name == "drift"]


def test_tenants_at_different_versions_do_not_differ(tenants: Tenancy, revisions: Revisions) -> None:
    revisions.add("b2", "a1", NUMBERS)
    migrate(tenants, "globex")
    (finding,) = drift(tenants)
    assert (finding.level, finding.tenant) == ("ok", None)
    assert "2 tenants" in finding.what


def test_a_column_changed_by_hand_is_reported(tenants: Tenancy, revisions: Revisions) -> None:
    revisions.add("b2", "a1", NUMBERS)
    migrate(tenants, "globex")
    table = own_table(tenants, "acme", "notes")
    name = tenants.fleet.shard.datastore.engine.dialect.identifier_preparer.format_table(table)
    with tenants.fleet.shard.datastore.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN number TEXT")
        connection.exec_driver_sql(f"ALTER TABLE {name} DROP COLUMN text")
    found = drift(tenants)
    assert {(each.level, each.tenant) for each in found} == {("failure", "acme")}
    text = " ".join(each.what for each in found)
    assert "has no column text" in text
    assert "has a column number that no revision creates" in text
    own_table(tenants, "acme", "notes").drop(tenants.fleet.shard.datastore.engine)
    (finding,) = drift(tenants)
    assert "is missing" in finding.what


@pytest.mark.parametrize("env", ["schema"], indirect=True)
def test_nothing_remains_of_the_reference(tenants: Tenancy) -> None:
    with tenants.fleet.shard.datastore.get_connection() as connection:
        before = sa.inspect(connection).get_schema_names()
    drift(tenants)
    with tenants.fleet.shard.datastore.get_connection() as connection:
        assert sa.inspect(connection).get_schema_names() == before


def test_revisions_that_fail_are_reported(tenants: Tenancy, revisions: Revisions) -> None:
    for mistake in ("op.execute('nonsense')", "raise LookupError"):
        revisions.add("a1", None, mistake)
        (finding,) = drift(tenants)
        assert (finding.level, finding.tenant) == ("warning", None)
        assert "cannot be examined" in finding.what


def test_a_fleet_without_migrations_has_none(env: dict[str, str]) -> None:
    with Tenancy(env=env) as tenants:
        tenants.init()
        assert drift(tenants) == []

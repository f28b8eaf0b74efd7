"""Tables that no tenant owns."""

from __future__ import annotations

import pytest

from tenancy import Tenancy
from tenancy.operations.doctor import examine, repair
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel, Reports
from tests.support.examinations import about, fleet, levels, run


def test_orphaned_tables_are_reported_and_kept(tenants: Tenancy, url: str) -> None:
    if url.startswith("sqlite"):
        run(url, "CREATE TABLE lost_k3f9_kennel_events (id INTEGER)", "CREATE TABLE my_abc_kennel_events (id INTEGER)")
    else:
        run(
            url,
            "CREATE SCHEMA lost_k3f9",
            "CREATE TABLE lost_k3f9.kennel_events (id INTEGER)",
            "CREATE SCHEMA school_data",
            "CREATE TABLE school_data.pupils (id INTEGER)",
            "CREATE SCHEMA legacy_abc",
            "CREATE TABLE legacy_abc.kennel_events (id INTEGER)",
        )
    (orphan,) = about(examine(tenants.fleet), "orphans")
    assert (orphan.level, orphan.what.split()[0].rstrip("_")) == ("warning", "lost_k3f9")
    assert list(repair(tenants.fleet)) == []
    assert about(examine(tenants.fleet), "orphans") == [orphan]
    assert Command(url)("doctor").code == 0


@pytest.mark.parametrize(
    ("template", "prefix"), [("{tenant}_{application}", ""), ("fleet", "{tenant}_"), ("x{tenant}", "{tenant}")]
)
def test_orphans_are_found_by_every_template(postgres_url: str, template: str, prefix: str) -> None:
    variables = {"TENANCY_SCHEMA": template, "TENANCY_TABLE_PREFIX": prefix}
    with fleet(postgres_url, Kennel, Reports, **variables) as tenants:
        tenants.create("acme")
        tenants.create("lost")
        assert levels(examine(tenants.fleet)) == {}
        lost = tenants["lost"]
        run(postgres_url, f"DELETE FROM tenancy.tenants WHERE id = '{lost.id}'")
        (orphan,) = about(examine(tenants.fleet), "orphans")
        assert orphan.what.split()[0] == str(lost.placement)

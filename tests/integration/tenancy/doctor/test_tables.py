"""Missing tables, and tables of another shape."""

from __future__ import annotations

from tenancy import Tenancy
from tenancy.operations.doctor import examine
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel
from tests.support.examinations import about, levels, run, tables


def test_missing_tables_are_found_and_created(tenants: Tenancy, url: str) -> None:
    (table,) = tables(tenants, "acme")
    run(url, f"DROP TABLE {table}")
    (fault,) = [finding for finding in about(examine(tenants.fleet), "tables") if finding.level == "failure"]
    assert (fault.tenant, "missing" in fault.what) == ("acme", True)
    assert Command(url)("doctor").code == 1
    report = Command(url)("doctor", "--repair", "--json")
    assert report.code == 0
    assert [each["tenant"] for each in report.json["repairs"]] == ["acme"]
    assert levels(examine(tenants.fleet)) == {}
    tenants["acme"].get(Kennel).register("Fido")


def test_a_table_of_another_shape_stays_a_failure_and_does_not_block_other_repairs(tenants: Tenancy, url: str) -> None:
    (wrong,), (missing,) = tables(tenants, "acme"), tables(tenants, "globex")
    run(url, f"DROP TABLE {wrong}", f"CREATE TABLE {wrong} (id INTEGER PRIMARY KEY)", f"DROP TABLE {missing}")
    outcome = Command(url)("doctor", "--repair")
    assert outcome.code == 1
    assert "not repaired: 'acme'" in outcome.err
    assert "repaired: 'globex' has all its tables." in outcome.err
    assert [finding.tenant for finding in about(examine(tenants.fleet), "tables")] == ["acme"]

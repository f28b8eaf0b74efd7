"""Findings about databases, poolers and rights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tenancy import Tenancy
from tenancy.operations.doctor import examine, is_unreachable, repair
from tests.acceptance.commands import Command
from tests.support.examinations import about, fleet, levels, run
from tests.support.pgbouncer import PgBouncer


def test_an_unreachable_database_is_a_single_finding(tmp_path: Path) -> None:
    for away in ("postgresql://postgres@127.0.0.1:1/x", f"sqlite:///{tmp_path}/nowhere/fleet.db"):
        with fleet(away) as tenants:
            findings = examine(tenants.fleet)
            assert is_unreachable(findings)
            assert levels(findings) == {"database": "failure"}
            assert not about(findings, "registry")
        assert Command(away)("doctor").code == 6
        assert Command(away)("doctor", "--repair", "--json").code == 6


def test_only_the_registrys_database_may_be_unreachable(sqlite_url: str, tmp_path: Path) -> None:
    with fleet(sqlite_url, TENANCY_CONTROL_URL=f"sqlite:///{tmp_path}/nowhere/registry.db") as tenants:
        good, bad = about(examine(tenants.fleet), "database")
        assert (good.level, bad.level) == ("ok", "failure")


def test_without_a_registry_the_remedy_is_init(url: str) -> None:
    with fleet(url) as tenants:
        findings = examine(tenants.fleet)
        assert levels(findings) == {"registry": "failure"}
        assert "tenancy init" in about(findings, "registry")[0].remedy
        assert [each.level for each in repair(tenants.fleet)] == ["failure"]
    assert Command(url)("doctor").code == 1


def test_a_registry_of_another_format_is_left_alone(tenants: Tenancy, url: str) -> None:
    rows = "tenancy_fleet_settings" if url.startswith("sqlite") else "tenancy.fleet_settings"
    run(url, f"UPDATE {rows} SET value = '99' WHERE key = 'format'")
    findings = examine(tenants.fleet)
    assert levels(findings) == {"registry": "failure"}
    assert not about(findings, "tables")


def test_a_pooler_is_found(pgbouncer: PgBouncer, postgres_database: str, postgres_url: str) -> None:
    through = pgbouncer.url(postgres_database)
    with fleet(through) as tenants:
        tenants.create("acme")
        assert levels(examine(tenants.fleet)) == {"pooler": "warning"}
    with fleet(through, SQLALCHEMY_LISTEN_URL=postgres_url) as tenants:
        assert levels(examine(tenants.fleet)) == {}


def test_missing_rights_are_found_with_the_grant(postgres_url: str) -> None:
    role = f"role_{make_url(postgres_url).database}"
    with fleet(postgres_url) as tenants:
        tenants.create("acme")
        schema = tenants["acme"].placement.schema
    run(
        postgres_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
        f"GRANT USAGE ON SCHEMA tenancy, {schema} TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA tenancy TO {role}",
    )
    mine = make_url(postgres_url).set(username=role, password="x").render_as_string(hide_password=False)  # noqa: S106 (of the test)
    try:
        with fleet(mine) as tenants:
            found = {finding.what: finding for finding in about(examine(tenants.fleet), "rights")}
            assert sorted(finding.level for finding in found.values()) == ["failure", "warning", "warning"]
            (reading,) = (finding for finding in found.values() if finding.level == "failure")
            assert f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}" in reading.remedy
            grants = [finding.remedy.partition(": ")[2] for finding in found.values()]
        run(postgres_url, *grants)
        with fleet(mine) as tenants:
            assert [finding.level for finding in about(examine(tenants.fleet), "rights")] == ["ok"]
    finally:
        run(postgres_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_read_only_file_is_found(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet(sqlite_url) as tenants:
        tenants.create("acme")
        # A superuser may write every file.
        monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
        assert levels(examine(tenants.fleet)) == {"rights": "warning"}

"""Findings and repairs of the doctor on real databases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import make_url

from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.errors import SequenceBehindError
from tenancy import Tenancy
from tenancy.errors import TenantPurged
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.operations.doctor import Finding, examine, is_unreachable, repair
from tenancy.storage.provisioner import Provisioner
from tenancy.storage.remover import Remover
from tests.acceptance.commands import ROOT, Command
from tests.samples.kennels import Kennel, Reports
from tests.support.pgbouncer import PgBouncer

ABOUT = [
    "applications", "database", "distributions", "driver", "due", "migrations", "orphans", "registry", "rights",
    "sequences", "steps", "tables", "versions",
]  # fmt: skip


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


def fleet(url: str, *applications: type[Kennel], **variables: str) -> Tenancy:
    """Return a fleet on a database."""
    return Tenancy(applications=applications or [Kennel], env={"SQLALCHEMY_URL": url, **variables})


def about(findings: Sequence[Finding], name: str) -> list[Finding]:
    """Return the findings of one name."""
    return [finding for finding in findings if finding.name == name]


def levels(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the level of each name whose findings are not all ok."""
    return {finding.name: finding.level for finding in findings if finding.level != "ok"}


def run(url: str, *statements: str) -> None:
    """Run statements without the fleet."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def tables(tenants: Tenancy, slug: str) -> list[str]:
    """Return the names of a tenant's event tables."""
    specs = tenants.fleet.inventory.specs(tenants[slug].placement, tenants.application_specs())
    return [str(spec.name) for spec in specs if spec.name.name.endswith("_events")]


def age(url: str, slug: str, status: TenantStatus) -> None:
    """Backdate a tenant's status, as after a process was killed long ago."""
    rows = "tenancy_tenants" if url.startswith("sqlite") else "tenancy.tenants"
    then = (datetime.now(UTC) - timedelta(hours=1)).isoformat(" ")
    run(url, f"UPDATE {rows} SET status = '{status}', changed_at = '{then[:26]}' WHERE slug = '{slug}'")


# -- a healthy fleet --


def test_a_healthy_fleet_has_no_fault(tenants: Tenancy) -> None:
    findings = examine(tenants.fleet)
    assert levels(findings) == {}
    assert sorted({finding.name for finding in findings} - {"pooler"}) == ABOUT
    assert list(repair(tenants.fleet)) == []


class Counting:
    """An executor that counts queries."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.count = 0

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, prepare: bool = True) -> Sequence[Sequence[Any]]:
        self.count += 1
        return self._executor.fetch(statement, parameters, prepare=prepare)


def test_the_whole_fleet_is_examined_in_few_queries(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    run_there = tenants.fleet.shard.datastore.run

    def run_counting(work: Callable[[Any], Any], *_: object) -> Any:
        def counted(executor: Executor) -> Any:
            counting = Counting(executor)
            try:
                return work(counting)
            finally:
                counts.append(counting.count)

        return run_there(counted)

    list(tenants.create_many(f"tenant-{number}" for number in range(30)))
    application_specs, every = tenants.application_specs(), tenants.list()
    monkeypatch.setattr(tenants.fleet.shard.datastore, "run", run_counting)
    assert list(tenants.fleet.inventory.faults(every, application_specs)) == []
    assert counts == [1]
    counts.clear()
    assert tenants.fleet.inventory.sequences_behind(every, application_specs) == []
    assert sum(counts) <= 3


# -- the database --


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


# -- the installation --


def test_two_distributions_of_one_package_are_found(tmp_path: Path) -> None:
    published = tmp_path / "eventsourcing_sqlalchemy-1.0.1.dist-info"
    published.mkdir()
    (published / "METADATA").write_text("Metadata-Version: 2.1\nName: eventsourcing-sqlalchemy\nVersion: 1.0.1\n")
    (published / "RECORD").write_text("eventsourcing_sqlalchemy/__init__.py,,\n")
    program = "from tenancy.operations import doctor; print(doctor._distributions())"
    for paths, level in (([str(ROOT)], "ok"), ([str(ROOT), str(tmp_path)], "failure")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"level='{level}'" in done.stdout, done.stdout
        assert ("1.0.1" in done.stdout) is (level == "failure")


# -- tables --


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


def test_sequences_behind_their_tables_are_found_and_moved(postgres_url: str) -> None:
    """As after a data-only restore. One sequence cannot be moved; the others are moved all the same."""
    with fleet(postgres_url, SQLALCHEMY_LOCK_TIMEOUT="0.5") as tenants:
        list(tenants.create_many(["acme", "globex", "initech", "umbrella"]))
        slugs = ["acme", "globex", "initech"]
        run(postgres_url, "SELECT setval('tenancy.tenancy_registry_events_id_seq', 1)")
    with fleet(postgres_url, SQLALCHEMY_LOCK_TIMEOUT="0.5") as tenants:
        with pytest.raises(SequenceBehindError, match=r"tenancy_registry_events_id_seq.*tenancy doctor --repair"):
            tenants.suspend("umbrella")
        for slug in slugs:
            tenants[slug].get(Kennel).register("Fido")
            (table,) = tables(tenants, slug)
            sequence = f'{table[:-1]}_id_seq"'
            run(postgres_url, f"UPDATE {table} SET id = 100", f"ALTER SEQUENCE {sequence} RESTART")
            with pytest.raises(SequenceBehindError, match="tenancy doctor --repair"):
                tenants[slug].get(Kennel).register("Rex")
        found = about(examine(tenants.fleet), "sequences")
        assert [(each.level, each.tenant) for each in found] == [("failure", owner) for owner in (None, *slugs)]
        blocker = sa.create_engine(postgres_url)
        key = tenants.fleet.inventory.specs(tenants["globex"].placement, tenants.application_specs())[0].name.key
        with blocker.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({key})")
            done = about(list(repair(tenants.fleet)), "sequences")
        blocker.dispose()
        assert {each.tenant: each.level for each in done} == {
            None: "ok",
            "acme": "ok",
            "globex": "failure",
            "initech": "ok",
        }
        assert Command(postgres_url)("doctor", "--repair").code == 0
        for slug in slugs:
            tenants[slug].get(Kennel).register("Rex")
        tenants.suspend("umbrella")
        assert list(repair(tenants.fleet)) == []


def test_a_table_of_another_shape_stays_a_failure_and_does_not_block_other_repairs(tenants: Tenancy, url: str) -> None:
    (wrong,), (missing,) = tables(tenants, "acme"), tables(tenants, "globex")
    run(url, f"DROP TABLE {wrong}", f"CREATE TABLE {wrong} (id INTEGER PRIMARY KEY)", f"DROP TABLE {missing}")
    outcome = Command(url)("doctor", "--repair")
    assert outcome.code == 1
    assert "not repaired: 'acme'" in outcome.err
    assert "repaired: 'globex' has all its tables." in outcome.err
    assert [finding.tenant for finding in about(examine(tenants.fleet), "tables")] == ["acme"]


@pytest.mark.usefixtures("tenants")
def test_a_new_application_of_the_code_is_recorded_and_gets_its_tables(url: str) -> None:
    with fleet(url, Kennel, Reports) as grown:
        findings = examine(grown.fleet)
        assert {finding.tenant for finding in about(findings, "tables")} == {"acme", "globex"}
        assert "not recorded" in about(findings, "applications")[0].what
        assert {each.level for each in repair(grown.fleet)} == {"ok"}
        assert levels(examine(grown.fleet)) == {}
        grown["acme"].get(Reports).register("Fido")


@pytest.mark.usefixtures("tenants")
def test_an_application_removed_from_the_code_stays_recorded(url: str) -> None:
    with fleet(url, Reports) as shrunk:
        assert levels(examine(shrunk.fleet)) == {
            "applications": "failure",
            "migrations": "warning",
            "tables": "failure",
        }
        list(repair(shrunk.fleet))
        assert levels(examine(shrunk.fleet))["applications"] == "failure"
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        assert [each.application for each in operator.application_specs()] == ["Kennel"]


@pytest.mark.usefixtures("tenants")
def test_code_that_both_adds_and_lacks_an_application_is_not_recorded(url: str) -> None:
    """Recording it would forget the application that the code lacks."""
    with fleet(url, Reports) as other:
        (finding,) = about(list(repair(other.fleet)), "applications")
        assert (finding.level, finding.tenant) == ("failure", None)
        assert finding.what == "Not recorded: Reports. The code lacks Kennel."
        assert finding.remedy == "If these were removed permanently, run: tenancy init"
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        assert [each.application for each in operator.application_specs()] == ["Kennel"]
    with fleet(url, Reports) as other:
        other.init()
        assert about(list(repair(other.fleet)), "applications") == []


# -- interrupted steps --


def test_interrupted_steps_are_completed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException): ...

    def die(*_: object) -> None:
        raise Killed

    with fleet(url) as tenants:
        tenants.create("good")
        tenants.create("purging")
        with monkeypatch.context() as patch:
            patch.setattr(Provisioner, "create_tables", die)
            patch.setattr(Remover, "drop", die)
            with pytest.raises(Killed):
                tenants.create("begun")
            with pytest.raises(Killed):
                tenants.purge("purging")
        steps = about(examine(tenants.fleet), "steps")
        assert [(step.tenant, step.level) for step in steps] == [("begun", "warning"), ("purging", "warning")]
        age(url, "begun", TenantStatus.PROVISIONING)
        age(url, "purging", TenantStatus.PURGING)
        steps = about(examine(tenants.fleet), "steps")
        assert [(step.tenant, step.level) for step in steps] == [("begun", "failure"), ("purging", "failure")]
        assert f"since {datetime.now(UTC) - timedelta(hours=1):%Y-%m-%d %H}" in steps[0].what
        report = Command(url)("doctor", "--repair", "--actor", "cron")
        assert report.code == 0, report
        assert "repaired: 'begun' is ready." in report.err
        assert "repaired: 'purging' is purged." in report.err
        assert levels(examine(tenants.fleet)) == {}
        assert [tenant.slug for tenant in tenants] == ["begun", "good"]
        assert tenants.history("begun")[-1].actor == "cron"
        tenants["begun"].get(Kennel).register("Fido")


def test_a_tenant_purged_meanwhile_is_not_recreated(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    (table,) = tables(tenants, "acme")
    acme = tenants["acme"]
    run(tenants.settings.url.render_as_string(hide_password=False), f"DROP TABLE {table}")
    every = tenants.list()
    tenants.purge("acme")
    monkeypatch.setattr(tenants.fleet.registry, "list", lambda *_: every)
    list(repair(tenants.fleet))
    assert not tenants.fleet.inventory.of_tenant(acme, tenants.application_specs())
    with pytest.raises(TenantPurged):
        tenants.complete(beginning(acme))


def beginning(tenant: Tenant) -> Tenant:
    """Return a tenant as it was during its creation."""
    return replace(tenant, status=TenantStatus.PROVISIONING)


# -- orphans --


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

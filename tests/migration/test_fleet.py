"""Tenants that are behind are migrated, and new ones are recorded with the versions that they have."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.persistence import Tracking

from eventsourcing_sqlalchemy.migrations import HEAD
from tenancy import Tenancy, Tenant
from tenancy.model.tenant import TenantRequest
from tenancy.model.versions import Versions
from tenancy.operations.doctor import Finding, examine, repair
from tenancy.operations.jobs import TenantSelection
from tenancy.operations.migrations import Migrate, status_of
from tests.acceptance.commands import Command
from tests.samples.published_school import Counts, CountsView, Library, School
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.published_tables import PublishedTables

APP = "tests.samples.published_school"


@pytest.fixture(params=["one file", "a file and the registry's", "postgres"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of a fleet on an empty database."""
    if request.param == "postgres":
        return {"SQLALCHEMY_URL": str(request.getfixturevalue("postgres_url"))}
    url: str = request.getfixturevalue("sqlite_url")
    return {"SQLALCHEMY_URL": url} | ({} if request.param == "one file" else {"TENANCY_CONTROL_URL": f"{url}-registry"})


def fleet(env: dict[str, str], *applications: type[Application[Any]]) -> Tenancy:
    return Tenancy(applications=applications or [School], env=env)


@pytest.fixture
def tenants(env: dict[str, str]) -> Iterator[Tenancy]:
    """A fleet with three tenants of version 0 and one at the head."""
    with fleet(env) as tenants:
        adopt(tenants, env, "acme", "globex", "umbra")
        tenants.create("new")
        yield tenants


def adopt(tenants: Tenancy, env: dict[str, str], *slugs: str) -> None:
    """Adopt tables of the published package."""
    url = env["SQLALCHEMY_URL"]
    for slug in slugs:
        if url.startswith("sqlite"):
            PublishedTables(url, None, f"{slug}_").close()
            tenants.adopt(slug, table_prefix=f"{slug}_")
        else:
            PublishedTables(url, slug).close()
            tenants.adopt(slug, schema=slug)


def versions(tenants: Tenancy) -> dict[str, int]:
    """Return the recorded version of each tenant, after a comparison with its tables."""
    recorded = {tenant.slug: tenant.versions.tables for tenant in tenants.list()}
    found = tenants.fleet.inventory.versions(tenants.list(), tenants.application_specs())
    assert {tenant.slug: version for tenant, version in found} == recorded
    return recorded


def execute(env: dict[str, str], statement: str) -> None:
    engine = sa.create_engine(env["SQLALCHEMY_URL"])
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


# -- versions --


def test_tenants_that_are_behind_are_migrated(tenants: Tenancy) -> None:
    assert versions(tenants) == {"acme": 0, "globex": 0, "new": 1, "umbra": 0}
    tenants.suspend("globex")
    tenants.archive("umbra")
    before = tenants.history("new")
    report = tenants.migrate(actor="ops-7")
    assert report.is_success
    assert (report.counts.done, report.counts.total) == (3, 3)
    assert versions(tenants) == dict.fromkeys(("acme", "globex", "new", "umbra"), HEAD)
    assert tenants["globex"].status == "suspended"
    assert [(change.action, change.actor) for change in tenants.history("acme")][-1] == ("migrate", "ops-7")
    assert tenants.history("new") == before
    school = tenants["acme"].get(School)
    assert school.recorder.max_notification_id() == 2
    school.recorder.insert_tracking(Tracking("x" * 33, 1))
    assert status_of(tenants.fleet).behind == []


def test_second_call_records_no_job(tenants: Tenancy) -> None:
    tenants.migrate()
    report = tenants.migrate()
    assert report.is_success
    assert report.job is None
    assert len(tenants.jobs.list()) == 1


def test_some_tenants_are_migrated(tenants: Tenancy) -> None:
    tenants.migrate(tenants=TenantSelection(slugs=["globex"]))
    assert versions(tenants) == {"acme": 0, "globex": 1, "new": 1, "umbra": 0}
    tenants.migrate(tenants=TenantSelection(limit=1))
    assert versions(tenants) == {"acme": 1, "globex": 1, "new": 1, "umbra": 0}


def test_status_counts_versions(tenants: Tenancy) -> None:
    status = status_of(tenants.fleet)
    assert status.head.tables == HEAD
    assert [(each.versions.tables, each.tenants) for each in status.counts] == [(0, 3), (1, 1)]
    assert [(each.tenant.slug, each.summary) for each in status.behind] == [
        (slug, "migrate own tables from version 0 to 1") for slug in ("acme", "globex", "umbra")
    ]


def test_tables_that_another_version_began_to_create_count_as_older(tenants: Tenancy) -> None:
    registry = tenants.fleet.registry
    placement = tenants.fleet.provisioning._new("half", TenantRequest(slug="half")).placement  # noqa: SLF001 (as create does)
    older = Tenant.requested(
        TenantRequest(slug="half"), tenants["new"].id.__class__(int=1), "half", placement, Versions()
    )
    registry.add([older], None)
    assert tenants.complete("half").versions == Versions(0, tenants.fleet.head_versions().created)
    tenants.migrate()
    assert versions(tenants)["half"] == HEAD


def test_tenants_are_created_while_others_are_migrated(env: dict[str, str]) -> None:
    """Whichever comes first: a new tenant is at the head, and a migration does not touch it."""
    env = {**env, "SQLALCHEMY_LOCK_TIMEOUT": "60"}  # on a busy machine, 22 threads queue for one file longer than 5 s
    with fleet(env) as tenants:
        adopt(tenants, env, *(f"old{number}" for number in range(6)))
        slugs = [f"new-{number}" for number in range(20)]
        creators = [partial(_create, env, [slug]) for slug in slugs]
        calls: list[Callable[[], None]] = [*creators, partial(_migrate, env), partial(_migrate, env)]
        run_together(calls, 4 * DEADLINE_SECONDS)
        assert versions(tenants) == dict.fromkeys([*slugs, *(f"old{number}" for number in range(6))], HEAD)
        assert status_of(tenants.fleet).behind == []
        for slug in slugs:
            assert [change.action for change in tenants.history(slug)] == ["create", "activate"]
        for tenant in tenants.list():
            tenant_school = tenants.application(School, tenant)
            tenant_school.enrol()


def _create(env: dict[str, str], slugs: Iterable[str]) -> None:
    with fleet(env) as tenants:
        for slug in slugs:
            tenants.create(slug)


def _migrate(env: dict[str, str]) -> None:
    with fleet(env) as tenants:
        assert tenants.migrate().is_success


# -- new applications and projections --


def test_tables_of_a_new_application_and_projection_are_created(tenants: Tenancy, env: dict[str, str]) -> None:
    tenants.migrate()
    tenants["acme"].get(School).enrol()
    with fleet(env, School, Library) as later:
        later.project(School, Counts, CountsView)
        summaries = {each.tenant.slug: each.summary for each in status_of(later.fleet).behind}
        assert summaries == dict.fromkeys(("acme", "globex", "new", "umbra"), "create counts_tracking, library_events")
        report = later.migrate()
        assert report.is_success
        assert report.counts.done == 4
        assert later.migrate().job is None
        assert later["acme"].get(Library).recorder.max_notification_id() in (None, 0)
        assert later.projection(Counts, "acme").view.total() == 0
        assert later.create("newest").versions == later.fleet.head_versions()
        assert later.migrate().job is None
    recorded = tenants.fleet.registry.fleet_settings()["applications"]
    assert {each["application"] for each in recorded} == {"School", "Library", "counts"}


def test_snapshots_that_are_enabled_later_get_their_table(env: dict[str, str]) -> None:
    with fleet(env, Library) as tenants:
        tenants.create("acme")
    env = {**env, "IS_SNAPSHOTTING_ENABLED": "yes"}
    with fleet(env, Library) as tenants:
        assert [each.summary for each in status_of(tenants.fleet).behind] == ["create library_snapshots"]
        tenants.migrate()
        assert status_of(tenants.fleet).behind == []
        assert tenants["acme"].get(Library).snapshots is not None


# -- failures --


def test_tenant_that_fails_is_reported_and_the_others_are_migrated(tenants: Tenancy, env: dict[str, str]) -> None:
    is_sqlite = env["SQLALCHEMY_URL"].startswith("sqlite")
    if is_sqlite:  # without the unique index, an event could be there twice
        events = "globex_school_events"
        columns = "originator_id, originator_version, topic, state"
        execute(env, f"DROP INDEX {events}_aggregate_idx")
        execute(env, f"INSERT INTO {events} SELECT id + 10, {columns} FROM {events}")
    else:
        execute(env, "CREATE VIEW globex.names AS SELECT application_name FROM globex.school_tracking")
    report = tenants.migrate()
    assert not report.is_success
    assert [failure.tenant for failure in report.failures] == ["globex"]
    assert versions(tenants) == {"acme": 1, "globex": 0, "new": 1, "umbra": 1}
    assert [each.tenant.slug for each in status_of(tenants.fleet).behind] == ["globex"]
    if is_sqlite:
        execute(env, "DELETE FROM globex_school_events WHERE id > 10")
    else:
        execute(env, "DROP VIEW globex.names")
    assert report.job is not None
    assert tenants.jobs.resume(report.job.id).is_success
    assert versions(tenants)["globex"] == HEAD


def test_tenant_that_was_purged_meanwhile_is_skipped(tenants: Tenancy) -> None:
    operation = Migrate(tenants.fleet, {})
    acme = tenants["acme"]
    tenants.purge("acme")
    with pytest.raises(Exception, match="purged"):
        operation.run(acme, _Item())


class _Item:
    progress: Any = None

    def save_progress(self, progress: Any) -> None:
        """Record nothing."""

    def check(self) -> None:
        """Go on."""


PROGRAM = """
import os, signal, sys
from tenancy import Tenancy
from tenancy.registry import Registry
from tests.samples.published_school import School

change = Registry.change

def kill(*arguments, **options):
    if sys.argv[1] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    change(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

Registry.change = kill
Tenancy(applications=[School]).migrate()
"""


@pytest.mark.parametrize("point", ["before", "after"])
def test_process_that_is_killed_between_tables_and_registry(
    tenants: Tenancy, env: dict[str, str], point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are at the head or not, and the recorded version is never ahead of them."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", PROGRAM, point], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    wait_until(lambda: _ends(tenants), "the server has ended the transactions")
    is_atomic = tenants.fleet.shard.is_file_of_registry
    tables = dict(_tables(tenants))
    assert {tenant.slug: tenant.versions.tables for tenant in tenants.list()}["acme"] == 0
    assert tables["acme"] == (0 if is_atomic else HEAD)
    assert tables["globex"] == 0
    report = tenants.migrate()
    assert report.is_success
    assert versions(tenants) == dict.fromkeys(("acme", "globex", "new", "umbra"), HEAD)


def _ends(tenants: Tenancy) -> bool:
    with tenants.fleet.registry.locked("acme"):
        return True


def _tables(tenants: Tenancy) -> Iterator[tuple[str, int]]:
    for tenant, version in tenants.fleet.inventory.versions(tenants.list(), tenants.application_specs()):
        yield tenant.slug, version


def test_tenant_can_be_suspended_while_its_migration_waits_for_a_reader(postgres_url: str) -> None:
    env = {"SQLALCHEMY_URL": postgres_url}
    engine = sa.create_engine(postgres_url)
    with fleet(env) as tenants, ThreadPoolExecutor(1) as thread, engine.connect() as reader:
        adopt(tenants, env, "acme")
        reader.exec_driver_sql("SELECT * FROM acme.school_tracking")
        waits = threading.Event()
        begin = tenants.fleet.provisioner.migrate_tables

        def migrate(*arguments: Any, **options: Any) -> None:
            waits.set()
            begin(*arguments, **options)

        tenants.fleet.provisioner.migrate_tables = migrate  # type: ignore[method-assign]
        migration = thread.submit(tenants.migrate, lock_timeout=0.05)
        assert waits.wait(DEADLINE_SECONDS)
        assert tenants.suspend("acme").status == "suspended"
        reader.rollback()
        assert migration.result(DEADLINE_SECONDS).is_success
        assert versions(tenants) == {"acme": HEAD}
    engine.dispose()


# -- doctor --


def about(findings: Iterable[Finding]) -> list[tuple[str, str | None]]:
    return [(finding.level, finding.tenant) for finding in findings if finding.name == "migrations"]


def test_doctor_reports_tenants_that_are_behind(tenants: Tenancy) -> None:
    (finding,) = [each for each in examine(tenants.fleet) if each.name == "migrations"]
    assert (finding.level, finding.remedy) == ("warning", "Migrate: tenancy migrate")
    assert "3 tenants" in finding.what
    tenants.migrate()
    assert about(examine(tenants.fleet)) == [("ok", None)]


def test_doctor_reports_tables_that_are_older_than_recorded(tenants: Tenancy, env: dict[str, str]) -> None:
    """As after a restore of the tenants' tables alone."""
    tenants.migrate()
    placement = tenants["globex"].placement
    names = [spec.name for spec in tenants.fleet.inventory.specs(placement, tenants.application_specs())]
    for name in names:
        execute(env, f"DROP TABLE {name}")
    if placement.schema is None:
        PublishedTables(env["SQLALCHEMY_URL"], None, placement.table_prefix).close()
    else:
        execute(env, f"DROP SCHEMA {placement.schema}")
        PublishedTables(env["SQLALCHEMY_URL"], placement.schema).close()
    assert about(examine(tenants.fleet)) == [("failure", "globex")]
    assert about(repair(tenants.fleet, actor="ops-7")) == [("ok", "globex")]
    assert about(examine(tenants.fleet)) == [("warning", None)]
    tenants.migrate()
    assert about(examine(tenants.fleet)) == [("ok", None)]


# -- the command --


@pytest.fixture
def command(tenants: Tenancy, env: dict[str, str]) -> Command:
    """The command on the fleet."""
    assert len(tenants.list()) == 4
    return Command(env["SQLALCHEMY_URL"], f"{APP}:tenants", env)


def test_command_migrates_and_shows_versions(command: Command, tenants: Tenancy, env: dict[str, str]) -> None:
    outcome = command("migrate", "--status")
    assert outcome.code == 1
    assert "acme" in outcome.out
    shape = command("migrate", "--status", "--json").json
    assert shape["head"] == {"tables": HEAD, "migrations": [], "views": {}}
    assert [(each["tables"], each["tenants"]) for each in shape["versions"]] == [(0, 3), (1, 1)]
    assert [each["tenant"] for each in shape["behind"]] == ["acme", "globex", "umbra"]
    assert shape["next_steps"] == ["tenancy migrate"]

    outcome = command.ok("migrate", "--dry-run", "--except", "umbra")
    assert "migrate own tables from version 0 to 1" in outcome.out
    assert "umbra" not in outcome.out
    assert versions(tenants)["acme"] == 0

    options = ("--canary", "1", "--check", "true", "--batch", "2", "--actor", "ops-7", "--json")
    outcome = command.process("migrate", *options)
    assert outcome.code == 0, outcome
    assert versions(tenants) == {"acme": 1, "globex": 1, "new": 1, "umbra": 0}
    assert tenants.history("acme")[-1].actor == "ops-7"
    adopt(tenants, env, "wayne")
    outcome = command.process("migrate", "--canary", "1", "--check", "false", "--processes", "1")
    assert outcome.code == 7
    assert versions(tenants) == {"acme": 1, "globex": 1, "new": 1, "umbra": 1, "wayne": 0}
    command.ok("migrate")
    assert command.ok("migrate").out == "Nothing to do.\n"
    assert command.ok("migrate", "--status").code == 0

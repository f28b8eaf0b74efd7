"""The disk is full while a fleet is migrated: each tenant stays at one version, and a later run finishes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.migrations import HEAD
from tenancy import Tenancy
from tenancy.errors import RegistryUnavailable
from tenancy.operations.jobs import JobOptions, JobReport, TenantSelection
from tenancy.testing.postgresql import PostgresServer
from tests.samples.published_school import School
from tests.support.published_tables import PublishedTables
from tests.support.revisions import Revisions, has_table, rows
from tests.support.small_disk import SmallDisk, small_disk

NOTES = 'op.create_table(own_name("notes"), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))'
# More than what is free in the pages of a new database.
DATA = """
op.create_table(own_name("more"), sa.Column("id", sa.Integer))
notes = sa.table(own_name("notes"), sa.column("id"), sa.column("text"))
op.bulk_insert(notes, [{"id": number, "text": "x" * 1000} for number in range(200)])
"""
FULL = "eventsourcing.persistence.OperationalError"
SLUGS = [f"tenant{number:02}" for number in range(16)]


@pytest.fixture
def disk(own_postgres_server: PostgresServer) -> Iterator[SmallDisk]:
    """A small disk with the database `small`; the database `registry` is elsewhere."""
    server = own_postgres_server
    with small_disk(server.directory / "small", 96) as disk:
        (disk.path / "space").mkdir()
        (disk.path / "space").chmod(0o777)
        if "user" in server.as_user:
            os.chown(disk.path / "space", server.as_user["user"], server.as_user["group"])
        engine = sa.create_engine(server.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE TABLESPACE small LOCATION '{disk.path / 'space'}'")
            connection.exec_driver_sql("CREATE DATABASE small TABLESPACE small")
            connection.exec_driver_sql("CREATE DATABASE registry")
        engine.dispose()
        yield disk
        server.stop("immediate")


@pytest.fixture(params=["the registry's too", "not the registry's"])
def env(request: pytest.FixtureRequest, own_postgres_server: PostgresServer, tmp_path: Path) -> dict[str, str]:
    """The variables of a fleet whose disk can be filled."""
    env = {"SQLALCHEMY_URL": own_postgres_server.url("small"), "TENANCY_MIGRATIONS": str(tmp_path / "migrations")}
    if request.param == "not the registry's":
        env["TENANCY_CONTROL_URL"] = own_postgres_server.url("registry")
    return env


def recorded(tenants: Tenancy) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return the recorded versions of each tenant, after a comparison with its tables."""
    own = dict(tenants.fleet.inventory.versions(tenants.list(), tenants.application_specs()))
    found = {}
    for tenant in tenants.list():
        assert own[tenant] == tenant.versions.tables, tenant.slug
        revisions = rows(tenants, tenant, "tenant_migrations") if has_table(tenants, tenant.slug, "notes") else []
        assert revisions == [(each,) for each in tenant.versions.migrations], tenant.slug
        found[tenant.slug] = tenant.versions.tables, tenant.versions.migrations
    return found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventsourcing_sqlalchemy.migrations.locking._MAX_PAUSE", 0.01)
    monkeypatch.setattr("tenancy.operations.jobs.executor._PATIENCE", 0.1)


def migrate(tenants: Tenancy) -> JobReport | None:
    """Migrate whatever fails; return None if the registry does not let the job go on."""
    options = JobOptions(error_budget="100%", lease_seconds=1)
    with suppress(RegistryUnavailable):
        return tenants.migrate(options=options)
    return None


def finish(tenants: Tenancy) -> None:
    """Resume the last job until all is done."""
    jobs = tenants.jobs.list()
    report = tenants.jobs.resume(jobs[0].id) if jobs and jobs[0].status != "done" else tenants.migrate()
    if not report.is_success:  # it was still running: joined, and what has failed before is left
        assert report.job is not None
        report = tenants.jobs.resume(report.job.id)
    assert report.is_success
    assert tenants.migrate().job is None


def test_users_tables_on_postgres(disk: SmallDisk, env: dict[str, str], tmp_path: Path) -> None:
    revisions = Revisions(tmp_path / "migrations")
    revisions.add("a1", None, NOTES)
    with Tenancy(applications=[School], env=env) as tenants:
        list(tenants.create_many(SLUGS))
        assert set(recorded(tenants).values()) == {(HEAD, ("a1",))}
        revisions.add("b2", "a1", DATA)
        tenants.migrate(tenants=TenantSelection(limit=2))
        disk.fill()
        report = migrate(tenants)
        if report is None:
            assert "TENANCY_CONTROL_URL" not in env
        else:
            assert {(each.error, each.sqlstate) for each in report.failures} == {(FULL, "53100")}
            assert report.counts.failed == len(SLUGS) - 2
        expected = dict.fromkeys(SLUGS[2:], (HEAD, ("a1",)))
        assert recorded(tenants) == dict.fromkeys(SLUGS[:2], (HEAD, ("b2",))) | expected
        assert [has_table(tenants, slug, "more") for slug in SLUGS[1:3]] == [True, False]
        disk.free()
        finish(tenants)
        assert set(recorded(tenants).values()) == {(HEAD, ("b2",))}
        assert {len(rows(tenants, slug, "notes")) for slug in SLUGS} == {200}


def test_own_tables_on_postgres(disk: SmallDisk, env: dict[str, str], tmp_path: Path) -> None:
    """The step changes the catalog, which is on the full disk, too."""
    Revisions(tmp_path / "migrations")
    with Tenancy(applications=[School], env=env) as tenants:
        for slug in SLUGS:
            PublishedTables(env["SQLALCHEMY_URL"], slug).close()
            tenants.adopt(slug, schema=slug)
        disk.fill()
        report = migrate(tenants)
        if report is None:
            assert "TENANCY_CONTROL_URL" not in env
        else:
            assert {(each.error, each.sqlstate) for each in report.failures} <= {(FULL, "53100")}
            assert report.counts.failed > 0
        assert {version for version, _ in recorded(tenants).values()} <= {0, HEAD}
        disk.free()
        finish(tenants)
        assert {version for version, _ in recorded(tenants).values()} == {HEAD}


# Python ignores the signal SIGXFSZ, so writing beyond the limit is an error of the operating system.
PROGRAM = """
import glob, os, resource, sys
from eventsourcing_sqlalchemy.migrations import locking
from tenancy import Tenancy
from tenancy.operations.jobs import JobOptions
from tests.samples.published_school import School
locking._MAX_PAUSE = 0.01
with Tenancy(applications=[School]) as tenants:
    sizes = [os.path.getsize(path) for path in glob.glob(sys.argv[1] + "*")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) + 150_000, resource.RLIM_INFINITY))
    for failure in tenants.migrate(options=JobOptions(error_budget="100%")).failures:
        print(failure.tenant, failure.error, failure.sqlstate)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
@pytest.mark.parametrize("what", ["users' tables", "own tables"])
@pytest.mark.parametrize("control", ["", "-registry"])
def test_sqlite(sqlite_url: str, tmp_path: Path, what: str, control: str) -> None:
    revisions = Revisions(tmp_path / "migrations")
    env = {"SQLALCHEMY_URL": sqlite_url, "TENANCY_MIGRATIONS": str(revisions.path)}
    env["TENANCY_CONTROL_URL"] = f"{sqlite_url}{control}"
    slugs = SLUGS[:4]
    with Tenancy(applications=[School], env=env) as tenants:
        before: tuple[int, tuple[str, ...]] = 0, ()
        after: tuple[int, tuple[str, ...]] = HEAD, ()
        if what == "own tables":
            for slug in slugs:
                tables = PublishedTables(sqlite_url, None, f"{slug}_")
                tables.execute(f'UPDATE "{slug}_school_events" SET state = zeroblob(300000)')
                tables.close()
                tenants.adopt(slug, table_prefix=f"{slug}_")
        else:
            revisions.add("a1", None, NOTES)
            list(tenants.create_many(slugs))
            revisions.add("b2", "a1", DATA)
            before, after = (HEAD, ("a1",)), (HEAD, ("b2",))
        assert set(recorded(tenants).values()) == {before}
        output = subprocess.run(
            [sys.executable, "-c", PROGRAM, sqlite_url.removeprefix("sqlite:///")],
            env={**os.environ, **env},
            cwd=Path(__file__).parents[2],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        failed = {line.split()[0] for line in output.splitlines()}
        assert failed
        assert {line.split()[2] for line in output.splitlines()} <= {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}
        assert recorded(tenants) == {slug: before if slug in failed else after for slug in slugs}
        finish(tenants)
        assert set(recorded(tenants).values()) == {after}

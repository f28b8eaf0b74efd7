"""The server ends all connections, or restarts, repeatedly while a whole fleet is migrated."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tenancy import Tenancy
from tenancy.testing.postgresql import PostgresServer
from tests.faults.test_migration_processes import MigrateProcess
from tests.samples.migrated_school import fleet
from tests.support.deadlines import wait_until
from tests.support.revisions import Revisions, rows

NOTES = 'op.create_table(own_name("notes"), sa.Column("id", sa.Integer), sa.Column("step", sa.Text))'
# Each step leaves a row, and takes long enough to be interrupted.
STEP = """
op.add_column(own_name("notes"), sa.Column("column_{step}", sa.Integer))
op.execute(f"INSERT INTO {{own_name('notes')}} (id, step) SELECT 1, '{step}' FROM (SELECT pg_sleep(0.05)) AS slow")
"""
SLUGS = [f"tenant{number:02}" for number in range(20)]
STEPS = ("b2", "c3", "d4")
INCIDENTS = 6


def end_connections(server: PostgresServer) -> None:
    """End all connections to the database, in the middle of whatever they do."""
    engine = sa.create_engine(server.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


def restart(server: PostgresServer) -> None:
    """Restart the server in order."""
    server.restart()


def kill(server: PostgresServer) -> None:
    """Kill the server, and start it on what has reached the disk."""
    server.kill()
    server.start()


@pytest.fixture
def tenants(own_postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tenancy]:
    """A fleet whose tenants all lack three revisions."""
    revisions = Revisions(tmp_path / "migrations")
    revisions.add("a1", None, NOTES)
    monkeypatch.setenv("SQLALCHEMY_URL", own_postgres_server.url())
    monkeypatch.setenv("TENANCY_MIGRATIONS", str(revisions.path))
    monkeypatch.setenv("TENANCY_APP", "tests.samples.migrated_school:fleet")
    with fleet() as tenants:
        list(tenants.create_many(SLUGS))
        for before, step in zip(["a1", *STEPS], STEPS, strict=False):
            revisions.add(step, before, STEP.format(step=step))
        yield tenants


def versions(tenants: Tenancy) -> Counter[tuple[str, ...]]:
    """Count the revisions that the tenants' tables have; check that what they created is the same."""
    found: Counter[tuple[str, ...]] = Counter()
    for tenant in tenants.list():
        at = tuple(row[0] for row in rows(tenants, tenant, "tenant_migrations"))
        steps = sorted(row[1] for row in rows(tenants, tenant, "notes"))
        assert (at, steps) in [(("a1",), []), (("d4",), [*STEPS])], tenant.slug
        found[at] += 1
    return found


def has_come_to(server: PostgresServer, enough: int) -> bool:
    """Tell whether the job has begun, and so many of its items have ended."""
    engine = sa.create_engine(server.url(), poolclass=NullPool)
    with engine.connect() as connection:
        query = "SELECT status IN ('done', 'failed') FROM tenancy.job_items WHERE status <> 'pending'"
        started = list(connection.scalars(sa.text(query)))
    return bool(started) and sum(started) >= enough


@pytest.mark.timeout(900)
@pytest.mark.parametrize("incident", [end_connections, restart, kill])
def test_the_fleet_ends_at_one_version(
    tenants: Tenancy, own_postgres_server: PostgresServer, incident: Callable[[PostgresServer], None]
) -> None:
    chance = random.Random(4711)  # noqa: S311 (not for secrets)
    server = own_postgres_server
    command = MigrateProcess("migrate", "--processes", "2", "--lease", "2", "--error-budget", "100%")
    try:
        for number in range(INCIDENTS):
            enough = number * len(SLUGS) // INCIDENTS + chance.randrange(3)
            wait_until(
                lambda enough=enough: command.has_ended or has_come_to(server, enough),  # type: ignore[misc] # (mypy knows no defaults of lambdas)
                f"{enough} tenants are migrated",
                120,
            )
            incident(server)
        code, errors = command.wait_for_end()
    finally:
        command.kill()
    assert code in (0, 1, 6, 7), errors
    versions(tenants)
    (job,) = tenants.jobs.list()
    if code != 0:
        assert f"tenancy jobs resume {job.id}" in errors
        code, errors = MigrateProcess("jobs", "resume", str(job.id)).wait_for_end()
        if code == 7:  # it was still running, and is joined: what has failed before is left
            code, errors = MigrateProcess("jobs", "resume", str(job.id)).wait_for_end()
    assert code == 0, errors
    assert versions(tenants) == {("d4",): len(SLUGS)}
    assert {tenant.versions.migrations for tenant in tenants.list()} == {("d4",)}

"""A registry of an earlier format is migrated, and one of a later format is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.errors import RegistryMismatch, RegistryMissing
from tenancy.operations.doctor import examine
from tenancy.registry import FORMAT, database
from tenancy.registry.migrations import steps_from
from tests.samples.kennels import Kennel
from tests.support.deadlines import run_together
from tests.support.first_registry import create_first_registry
from tests.support.full_catalog import full_catalog
from tests.support.relay import Point, Relay


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def fleet(url: str) -> Tenancy:
    return Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url})


def execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def catalog(url: str) -> object:
    return full_catalog(url, None if url.startswith("sqlite") else "tenancy")


def set_format(url: str, value: int) -> None:
    table = "tenancy_fleet_settings" if url.startswith("sqlite") else "tenancy.fleet_settings"
    execute(url, f"UPDATE {table} SET value = '{value}' WHERE key = 'format'")


def test_migrated_registry_equals_a_new_one(url: str) -> None:
    create_first_registry(url)
    with fleet(url) as tenants:
        assert tenants.fleet.registry.migrate()
    migrated = catalog(url)
    if url.startswith("sqlite"):
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            for name in sa.inspect(engine).get_table_names():
                connection.exec_driver_sql(f'DROP TABLE "{name}"')
        engine.dispose()
    else:
        execute(url, "DROP SCHEMA tenancy CASCADE")
    with fleet(url) as tenants:
        tenants.init()
    assert catalog(url) == migrated


def test_tenants_keep_their_rows_and_get_versions(url: str) -> None:
    create_first_registry(url, adopted=["globex"])
    with fleet(url) as tenants:
        tenants.fleet.registry.migrate()
        acme, globex = tenants.list()
        assert (acme.slug, acme.versions.tables, globex.versions.tables) == ("acme", 1, 0)
        assert [change.action for change in tenants.history("acme")] == ["create"]
        tenants.suspend("acme")
        assert not tenants.fleet.registry.migrate()
        assert tenants["acme"].status == "suspended"


@pytest.mark.parametrize(
    "call",
    [Tenancy.init, Tenancy.list, Tenancy.slugs, lambda tenants: tenants.create("umbra"), lambda tenants: tenants["x"]],
)
def test_older_registry_is_refused_with_the_command_that_migrates_it(
    url: str, call: Callable[[Tenancy], object]
) -> None:
    create_first_registry(url)
    before = catalog(url)
    with fleet(url) as tenants, pytest.raises(RegistryMismatch, match=r"format 1, .* Migrate it: tenancy migrate"):
        call(tenants)
    assert catalog(url) == before


def test_newer_registry_is_refused(url: str) -> None:
    with fleet(url) as tenants:
        tenants.init()
    set_format(url, FORMAT + 1)
    for call in (Tenancy.init, Tenancy.list, lambda tenants: tenants.fleet.registry.migrate()):
        with fleet(url) as tenants, pytest.raises(RegistryMismatch, match=f"format {FORMAT + 1}, .* Install"):
            call(tenants)


def test_doctor_reports_an_older_registry(url: str) -> None:
    create_first_registry(url)
    with fleet(url) as tenants:
        (finding,) = [each for each in examine(tenants.fleet) if each.name == "registry"]
    assert (finding.level, finding.remedy) == ("failure", "Migrate it: tenancy migrate")


def test_missing_registry_is_not_created(url: str) -> None:
    with fleet(url) as tenants, pytest.raises(RegistryMissing):
        tenants.fleet.registry.migrate()


def test_processes_migrate_at_once(url: str) -> None:
    create_first_registry(url)
    fleets = [fleet(f"{url}?application_name={number}" if "postgres" in url else url) for number in range(4)]
    assert sorted(run_together([each.fleet.registry.migrate for each in fleets])) == [False, False, False, True]
    for each in fleets:
        assert len(each.list()) == 2
        each.close()


def test_process_of_the_version_before_goes_on(url: str) -> None:
    """Its statements name no column that it does not know."""
    create_first_registry(url)
    with fleet(url) as tenants:
        tenants.fleet.registry.migrate()
        table = "tenancy_tenants" if url.startswith("sqlite") else "tenancy.tenants"
        columns = "slug, name, status, previous, reads, owns_schema, adopted, metadata, created_at, changed_at"
        execute(
            url,
            f"INSERT INTO {table} (id, placement, {columns}) "
            f"SELECT '00000000000000000000000000000001', '[null, \"x_\"]', 'umbra', {columns.partition(', ')[2]} "
            f"FROM {table} WHERE slug = 'acme'",
        )
        assert tenants.fleet.registry.find("umbra") is not None


@pytest.mark.parametrize("point", ["before", "during", "after"])
@pytest.mark.parametrize("marker", ["ALTER TABLE", "CREATE TABLE", "UPDATE", "COMMIT"])
def test_lost_connection(postgres_url: str, point: Point, marker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create_first_registry(postgres_url)
    with Relay(postgres_url) as relay, fleet(relay.url()) as tenants:

        def steps_from_here(*arguments: Any) -> list[str]:
            if not relay.broken:
                relay.break_at(point, marker)  # not before: BEGIN may name READ COMMITTED
            return steps_from(*arguments)

        monkeypatch.setattr(database, "steps_from", steps_from_here)
        tenants.fleet.registry.migrate()
        assert relay.broken == 1
        assert [tenant.versions.tables for tenant in tenants.list()] == [1, 1]


def test_registry_serves_while_a_migration_waits_for_a_reader(postgres_url: str) -> None:
    create_first_registry(postgres_url)
    engine = sa.create_engine(postgres_url)
    with fleet(postgres_url) as tenants, engine.begin() as reader:
        reader.exec_driver_sql("SELECT * FROM tenancy.tenants")

        def read_and_end() -> None:
            # Other readers get their turn between two attempts.
            for _ in range(5):
                execute(postgres_url, "UPDATE tenancy.tenants SET name = name")
            reader.rollback()

        calls: list[Callable[[], object]] = [tenants.fleet.registry.migrate, read_and_end]
        assert run_together(calls) == [True, None]
    engine.dispose()

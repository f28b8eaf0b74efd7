"""Adoption: existing tables become a tenant's, and stay unchanged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError
from eventsourcing.projection import ProjectionRunner
from sqlalchemy.pool import NullPool

from tenancy import Tenancy
from tenancy.errors import (
    TenancyError,
    TenantExists,
)
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel, Visits
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support import catalog

pytestmark = pytest.mark.usefixtures("no_purge_delay")


def plain(url: str, place: str) -> dict[str, str]:
    """Return the variables of an application without tenants."""
    where = "SQLALCHEMY_TABLE_PREFIX" if url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"
    return {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url, where: place}


def placed(url: str, place: str) -> dict[str, str]:
    return {"table_prefix" if url.startswith("sqlite") else "schema": place}


def write(url: str, place: str = "old_") -> None:
    for cls in (Kennel, Visits):
        with cls(env=plain(url, place)) as application:
            if isinstance(application, Kennel):
                application.register("Fido")


def test_adopted_tables_are_used_unchanged(tenants: Tenancy, url: str) -> None:
    write(url)
    before = catalog.tenants(url)
    acme = tenants.adopt("acme", **placed(url, "old_"), name="Acme", actor="ops-1")  # type: ignore[arg-type]
    assert catalog.tenants(url) == before
    assert acme.adopted
    assert acme.get(Kennel).names() == ["Fido"]
    acme.get(Kennel).register("Rex")
    with Kennel(env=plain(url, "old_")) as kennel:
        assert kennel.names() == ["Fido", "Rex"]
    assert [change.action for change in tenants.history("acme")] == ["adopt", "activate"]


def test_adopt_of_applications_in_different_places(tenants: Tenancy, url: str) -> None:
    write(url, "old_{application}_")
    acme = tenants.adopt("acme", **placed(url, "old_{application}_"))  # type: ignore[arg-type]
    assert acme.get(Kennel).names() == ["Fido"]


def run(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_purge_of_an_adopted_tenant_leaves_other_objects(fleet: MakeFleet, url: str) -> None:
    write(url)
    place = "old_" if url.startswith("sqlite") else '"old_".'
    run(
        url,
        f"CREATE TABLE {place}theirs (x integer)",
        f"CREATE TABLE {place}kennel_eventsource (x integer)",
        f"CREATE VIEW {place}happy AS SELECT * FROM {place}theirs",
    )
    tenants = fleet()
    tenants.adopt("acme", **placed(url, "old_"))  # type: ignore[arg-type]
    # An operator's process may lack some of the applications.
    certificate = fleet(Kennel).purge("acme")
    assert certificate.removed["tables"] == 4
    assert certificate.removed["views"] == 0
    left = {f"{place}{name}".replace('"', "") for name in ("theirs", "kennel_eventsource", "happy")}
    assert {name.replace('"', "") for name in certificate.others} - {"schema old_"} == left
    assert catalog.tenants(url) - {"old_"} == left


class School(TrainingSchool):
    """Has a name that is short enough for a long prefix."""


# With the long prefix, the names of own tables are shortened.
PLACES = [
    ("sqlite_url", {"table_prefix": "old_"}),
    ("sqlite_url", {}),
    ("postgres_url", {"schema": "old"}),
    ("postgres_url", {"table_prefix": "old_"}),
    ("postgres_url", {"schema": "old_{application}", "table_prefix": "x" * 35 + "_"}),
    ("postgres_url", {}),
]


@pytest.mark.parametrize(("database", "place"), PLACES)
def test_purge_of_an_adopted_tenant_removes_all_tables_of_its_applications_and_views(
    request: pytest.FixtureRequest,
    make_fleet: Callable[[str], MakeFleet],
    database: str,
    place: dict[str, str],
) -> None:
    url: str = request.getfixturevalue(database)
    tenants = make_fleet(url)(School, TENANCY_SCHEMA="", TENANCY_TABLE_PREFIX="{tenant}_")
    tenants.project(School, DogCounters, CountersView)
    globex = tenants.create("globex")
    before = catalog.objects(url)
    variables = {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "SQLALCHEMY_URL": url,
        "SQLALCHEMY_SCHEMA": place.get("schema", ""),
        "SQLALCHEMY_TABLE_PREFIX": place.get("table_prefix", ""),
    }
    # It has old snapshots, although the fleet's applications take none.
    with School(env={**variables, "IS_SNAPSHOTTING_ENABLED": "yes"}) as school:
        school.take_snapshot(school.register("Fido", "sit"))
    with ProjectionRunner(
        application_class=School, projection_class=DogCounters, view_class=CountersView, env=variables
    ):
        pass
    tenants.adopt("acme", **place)  # type: ignore[arg-type]
    assert tenants.projection(DogCounters, "acme").view.get_created_event_counter() >= 0
    # Even from a process without the code.
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        certificate = operator.purge("acme")
    assert certificate.removed["tables"] == 4
    schemas = catalog.objects(url) - before
    assert schemas <= {"old", "old_school", "old_dogcounters"}
    assert {name.replace('"', "").removeprefix("schema ") for name in certificate.others} == schemas
    assert globex.get(School).register("Rex")


def test_a_certificate_names_nothing_of_other_tenants(tenants: Tenancy, url: str) -> None:
    """Nor of the registry, although the tables are beside each other."""
    with Kennel(env=plain(url, "")), Visits(env=plain(url, "")):
        run(url, "CREATE TABLE theirs (x integer)")
    tenants.create("globex")
    run(url, f"CREATE TABLE {'' if url.startswith('sqlite') else 'public.'}kennel_events_theirs (x integer)")
    tenants.adopt("acme")
    certificate = tenants.purge("acme")
    assert certificate.removed["tables"] == 5
    assert [name.rpartition(".")[2].strip('"') for name in certificate.others] == ["theirs"]
    assert tenants["globex"].get(Kennel).names() == []


def test_adopt_of_a_place_that_covers_tables_of_an_adopted_tenant_is_refused(tenants: Tenancy, url: str) -> None:
    prefixes = ("", "kennel_events_")
    for prefix in prefixes:
        variables = {**plain(url, ""), "SQLALCHEMY_TABLE_PREFIX": prefix}
        with Kennel(env=variables), Visits(env=variables):
            pass
    for first, second in (prefixes, prefixes[::-1]):
        tenants.adopt("acme", table_prefix=first)
        with pytest.raises(TenancyError, match="belong to another tenant"):
            tenants.adopt("globex", table_prefix=second)
        with tenants.fleet.registry.locked("acme") as (session, (acme,)):
            tenants.fleet.registry.erase(session, acme, None)
        tenants.fleet.registry_cache.forget(acme.id)


def test_adopt_of_missing_tables_is_refused(tenants: Tenancy, url: str) -> None:
    with Kennel(env=plain(url, "old_")):
        pass
    with pytest.raises(TenancyError, match=r"no table .*visits_tracking"):
        tenants.adopt("acme", **placed(url, "old_"))  # type: ignore[arg-type]
    tenants.init()
    assert tenants.list() == []


def test_adopt_of_tables_of_another_shape_is_refused(tenants: Tenancy, url: str) -> None:
    with Kennel(env={**plain(url, "old_"), "ORIGINATOR_ID_TYPE": "text"}):
        pass
    with pytest.raises(ProgrammingError, match="cannot be used for"):
        tenants.adopt("acme", **placed(url, "old_"))  # type: ignore[arg-type]


def test_adopt_of_another_tenants_tables_is_refused(tenants: Tenancy, url: str) -> None:
    globex = tenants.create("globex")
    where = placed(url, str(globex.placement))
    with pytest.raises(TenancyError, match="belong to another tenant") as caught:
        tenants.adopt("acme", **where)  # type: ignore[arg-type]
    assert "globex" not in str(caught.value)
    write(url)
    tenants.adopt("acme", **placed(url, "old_"))  # type: ignore[arg-type]
    with pytest.raises(TenancyError, match="belong to another tenant"):
        tenants.adopt("other", **placed(url, "old_"))  # type: ignore[arg-type]
    with pytest.raises(TenantExists, match="'acme' already exists"):
        tenants.adopt("acme", **placed(url, "old_"))  # type: ignore[arg-type]
    assert set(tenants.slugs()) == {"globex", "acme"}


def test_adopt_of_tables_that_would_be_purged_with_another_tenant_is_refused(fleet: MakeFleet, url: str) -> None:
    tenants = fleet(TENANCY_TABLE_PREFIX="{tenant}_")
    prefix = tenants.create("globex").placement.table_prefix + "old_"
    variables = {**plain(url, ""), "SQLALCHEMY_TABLE_PREFIX": prefix}
    with Kennel(env=variables), Visits(env=variables):
        pass
    with pytest.raises(TenancyError, match="belong to another tenant"):
        tenants.adopt("acme", table_prefix=prefix)
    assert tenants.slugs() == ["globex"]


@pytest.mark.parametrize("place", ["{tenant}_", "a{b}", "}"])
def test_adopt_of_an_invalid_place_is_refused(tenants: Tenancy, url: str, place: str) -> None:
    with pytest.raises(TenancyError, match="the only placeholder"):
        tenants.adopt("acme", **placed(url, place))  # type: ignore[arg-type]


def test_adopt_of_a_schema_on_sqlite_is_refused(sqlite_url: str, make_fleet: Callable[[str], MakeFleet]) -> None:
    with Kennel(env=plain(sqlite_url, "")), Visits(env=plain(sqlite_url, "")):
        pass
    tenants = make_fleet(sqlite_url)()
    with pytest.raises(TenancyError, match="no schemas"):
        tenants.adopt("acme", schema="old")
    assert tenants.adopt("acme").placement.schema is None


def test_repair_of_a_purged_tenant_leaves_tables_adopted_since(tenants: Tenancy, url: str) -> None:
    """The same names, restored from a backup and registered again."""
    purged = tenants.create("acme")
    tenants.purge("acme")
    place = purged.placement.schema or purged.placement.table_prefix
    write(url, place)
    adopted = tenants.adopt("acme", **placed(url, place))  # type: ignore[arg-type]
    tenants.create_missing(purged)
    assert adopted.get(Kennel).names() == ["Fido"]

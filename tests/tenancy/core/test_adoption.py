"""Tables that exist become a tenant's, and stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError

from tenancy import Tenancy
from tenancy.errors import (
    TenancyError,
    TenantExists,
)
from tests.tenancy.core import catalog
from tests.tenancy.core.conftest import MakeFleet
from tests.tenancy.core.kennel import Kennel, Visits

pytestmark = pytest.mark.usefixtures("hasty")


def plain(url: str, place: str) -> dict[str, str]:
    """Return the variables of an application that knows nothing of tenants."""
    where = "SQLALCHEMY_TABLE_PREFIX" if url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"
    return {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url, where: place}


def placed(url: str, place: str) -> dict[str, str]:
    return {"table_prefix" if url.startswith("sqlite") else "schema": place}


def write(url: str, place: str = "old_") -> None:
    for cls in (Kennel, Visits):
        with cls(env=plain(url, place)) as application:
            if isinstance(application, Kennel):
                application.register("Fido")


def test_adopt_serves_tables_as_they_are(tenants: Tenancy, url: str) -> None:
    write(url)
    before = catalog.tenants(url)
    acme = tenants.adopt("acme", **placed(url, "old_"), name="Acme", actor="ops-1")  # type: ignore[arg-type]
    assert catalog.tenants(url) == before
    assert acme.adopted
    assert acme.get(Kennel).names() == ["Fido"]
    acme.get(Kennel).register("Rex")
    with Kennel(env=plain(url, "old_")) as kennel:
        assert kennel.names() == ["Fido", "Rex"]
    assert [change.verb for change in tenants.history("acme")] == ["adopt", "activate"]


def test_adopt_of_an_application_each_in_its_place(tenants: Tenancy, url: str) -> None:
    write(url, "old_{application}_")
    acme = tenants.adopt("acme", **placed(url, "old_{application}_"))  # type: ignore[arg-type]
    assert acme.get(Kennel).names() == ["Fido"]


def test_purge_of_an_adopted_tenant_leaves_what_is_not_its_own(fleet: MakeFleet, url: str) -> None:
    write(url)
    engine = sa.create_engine(url)
    place = "old_" if url.startswith("sqlite") else '"old_".'
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE {place}theirs (x integer)"))
    tenants = fleet()
    tenants.adopt("acme", **placed(url, "old_"))  # type: ignore[arg-type]
    # Also by an operator whose process has not all of the applications.
    certificate = fleet(Kennel).purge("acme")
    assert certificate.removed["tables"] == 4
    left = catalog.tenants(url)
    assert left == ({"old_theirs"} if url.startswith("sqlite") else {"old_", "old_.theirs"})
    engine.dispose()


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
    with pytest.raises(TenancyError, match="another tenant's") as caught:
        tenants.adopt("acme", **where)  # type: ignore[arg-type]
    assert "globex" not in str(caught.value)
    write(url)
    tenants.adopt("acme", **placed(url, "old_"))  # type: ignore[arg-type]
    with pytest.raises(TenancyError, match="another tenant's"):
        tenants.adopt("other", **placed(url, "old_"))  # type: ignore[arg-type]
    with pytest.raises(TenantExists, match="'acme' exists already"):
        tenants.adopt("acme", **placed(url, "old_"))  # type: ignore[arg-type]
    assert set(tenants.slugs()) == {"globex", "acme"}


def test_adopt_of_tables_that_would_be_purged_with_another_tenant_is_refused(fleet: MakeFleet, url: str) -> None:
    tenants = fleet(TENANCY_TABLE_PREFIX="{tenant}_")
    prefix = tenants.create("globex").placement.table_prefix + "old_"
    variables = {**plain(url, ""), "SQLALCHEMY_TABLE_PREFIX": prefix}
    with Kennel(env=variables), Visits(env=variables):
        pass
    with pytest.raises(TenancyError, match="another tenant's"):
        tenants.adopt("acme", table_prefix=prefix)
    assert tenants.slugs() == ["globex"]


@pytest.mark.parametrize("place", ["{tenant}_", "a{b}", "}"])
def test_adopt_of_a_place_that_cannot_be_is_refused(tenants: Tenancy, url: str, place: str) -> None:
    with pytest.raises(TenancyError, match="the only placeholder"):
        tenants.adopt("acme", **placed(url, place))  # type: ignore[arg-type]


def test_adopt_of_a_schema_where_there_are_none_is_refused(
    sqlite_url: str, make_fleet: Callable[[str], MakeFleet]
) -> None:
    with Kennel(env=plain(sqlite_url, "")), Visits(env=plain(sqlite_url, "")):
        pass
    tenants = make_fleet(sqlite_url)()
    with pytest.raises(TenancyError, match="no schemas"):
        tenants.adopt("acme", schema="old")
    assert tenants.adopt("acme").placement.schema is None

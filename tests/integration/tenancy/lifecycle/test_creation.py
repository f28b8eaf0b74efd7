"""Creation of tenants: once, however many callers request it and however often."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application

from tenancy import Tenancy, TenantRequest, TenantStatus
from tenancy.errors import (
    InvalidSlug,
    NotRegistered,
    RegistryMissing,
    TenancyError,
    TenantExists,
    TenantNotFound,
    TenantUnavailable,
)
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel, Notes
from tests.support import catalog
from tests.support.deadlines import run_together

pytestmark = pytest.mark.usefixtures("no_purge_delay")


class Registry(Application[UUID]):
    """Has the name of a part of the package."""


class OtherRegistry(Application[UUID]):
    """Has the same name as the other one."""

    name = "Registry"


def test_tenants_do_not_see_each_other(tenants: Tenancy) -> None:
    acme, globex = tenants.create("acme"), tenants.create("globex")
    acme.get(Kennel).register("Fido")
    globex.get(Kennel).register("Rex")
    assert acme.get(Kennel).names() == ["Fido"]
    assert globex.get(Kennel).names() == ["Rex"]
    assert [tenant.slug for tenant in tenants] == ["acme", "globex"]


def test_tenant_is_as_requested(tenants: Tenancy) -> None:
    made = tenants.create("Ünï-cödé x", metadata={"plan": ["gold", None]}, actor="ops-1")
    assert made == tenants["ÜNÏ-CÖDÉ X"] == tenants.list()[0]
    assert (made.slug, made.name, made.metadata) == ("ünï-cödé x", "Ünï-cödé x", {"plan": ["gold", None]})
    assert (made.status, made.adopted, made.previous, made.due_at) == (TenantStatus.ACTIVE, False, (), None)
    assert str(made.placement).startswith("unicodex_")
    assert [(change.action, change.status, change.actor) for change in tenants.history(made.slug)] == [
        ("create", "provisioning", "ops-1"),
        ("activate", "active", "ops-1"),
    ]
    assert made.slug in tenants
    assert "unknown" not in tenants
    assert "a/b" not in tenants
    assert tenants.slugs() == [made.slug]


def test_slug_is_unique(tenants: Tenancy) -> None:
    acme = tenants.create("acme")
    for slug in ("acme", "ACME", "\uff41cme"):
        with pytest.raises(TenantExists, match="'acme' already exists") as caught:
            tenants.create(slug)
        assert caught.value.tenant == "acme"
        assert tenants.create(slug, exist_ok=True).id == acme.id
    assert len(tenants.list()) == 1


@pytest.mark.parametrize("verb", ["suspend", "archive", "delete"])
def test_unavailable_tenant_is_not_returned(tenants: Tenancy, verb: str) -> None:
    tenants.create("acme", request_id="r-1")
    tenants.create("globex")
    status = str(getattr(tenants, verb)("acme", **({"reads": True} if verb == "suspend" else {})).status)
    undo = {"suspend": "resume", "archive": "restore", "delete": "undelete"}[verb]
    for again in (
        lambda: tenants.create("acme", exist_ok=True),
        lambda: tenants.create("acme", request_id="r-1"),
        lambda: list(tenants.create_many(["acme"], exist_ok=True)),
        lambda: list(tenants.create_many([TenantRequest(slug="acme", request_id="r-1")])),
    ):
        with pytest.raises(TenantUnavailable, match=f"{status}.*tenancy {undo} acme"):
            again()
    made = tenants.create_many(["new", "globex", "acme", "last"], exist_ok=True)
    assert [next(made).slug for _ in range(2)] == ["new", "globex"]
    with pytest.raises(TenantUnavailable, match=status):
        next(made)
    with pytest.raises(TenantExists, match=f"already exists, and is {status}.*tenancy {undo} acme") as caught:
        tenants.create("acme")
    assert "exist_ok" not in str(caught.value)
    getattr(tenants, undo)("acme")
    assert tenants.create("acme", exist_ok=True) == tenants.create("acme", request_id="r-1")


def test_taken_slug_error_has_no_other_cause(tenants: Tenancy) -> None:
    tenants.create("acme")
    tenants.create("globex")
    calls: list[Callable[[], object]] = [
        lambda: tenants.create("acme"),
        lambda: tenants.rename("globex", "acme"),
    ]
    for call in calls:
        with pytest.raises(TenantExists) as caught:
            call()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_invalid_slug_leaves_nothing(tenants: Tenancy) -> None:
    with pytest.raises(InvalidSlug):
        tenants.create("a/b")
    tenants.init()
    assert tenants.list() == []


def test_slugs_restricted_to_host_names(fleet: MakeFleet) -> None:
    tenants = fleet(TENANCY_SLUGS="dns")
    with pytest.raises(InvalidSlug, match="host name"):
        tenants.create("a.b")
    tenants.create("a-b")
    # An older tenant, from when more was allowed, is still found.
    fleet().create("ünï")
    assert tenants["ünï"].slug == "ünï"


def test_retry_of_a_request_returns_its_tenant(tenants: Tenancy) -> None:
    acme = tenants.create("acme", request_id="r-1")
    assert tenants.create("acme", request_id="r-1").id == acme.id
    with pytest.raises(TenantExists, match="'acme' already exists"):
        tenants.create("acme", request_id="r-2")
    with pytest.raises(TenantExists, match="another slug"):
        tenants.create("globex", request_id="r-1")
    assert tenants.slugs() == ["acme"]


def test_text_that_no_database_accepts_is_named(tenants: Tenancy) -> None:
    tenants.create("globex")
    for text in ("a\0b", "a\ud800"):
        for field in ("name", "request_id"):
            with pytest.raises(TenancyError, match=f"The {field.replace('_', ' ')} contains a NUL"):
                tenants.create("acme", **{field: text})  # type: ignore[arg-type]
        with pytest.raises(TenancyError, match="The reason contains a NUL"):
            tenants.suspend("globex", reason=text)
        with pytest.raises(TenancyError, match="The name contains a NUL"):
            tenants.rename("globex", name=text)
    assert tenants.slugs() == ["globex"]
    assert tenants["globex"].status == "active"


@pytest.mark.parametrize("name", ["100% 'quoted' \"name\"; DROP TABLE x -- {tenant} %(x)s :y ?"])
def test_names_are_never_executed(tenants: Tenancy, name: str) -> None:
    acme = tenants.create(name, name=name, metadata={name: name}, request_id=name)
    acme.get(Kennel).register(name)
    tenants.suspend(name, reason=name)
    assert tenants[name].reason == name
    tenants.resume(name)
    assert tenants.rename(name, f"{name} 2").name == name
    assert tenants[f"{name} 2"].get(Kennel).names() == [name]
    assert tenants.history(f"{name} 2")[-1].remark == f"was {name.casefold()}"


def test_many_are_created_in_order(tenants: Tenancy) -> None:
    slugs = [f"t{number:03}" for number in range(60)]
    requests: list[str | TenantRequest] = [
        TenantRequest(slug=slug, name=slug.upper()) if slug < "t030" else slug for slug in slugs
    ]
    made = list(tenants.create_many(requests, actor="ops-1"))
    assert [tenant.slug for tenant in made] == slugs
    assert all(tenant.status == "active" for tenant in made)
    assert len({str(tenant.placement) for tenant in made}) == 60
    made[59].get(Kennel).register("Fido")


def test_many_with_one_taken(tenants: Tenancy) -> None:
    tenants.create("b")
    iterator = tenants.create_many(["a", "b", "c"])
    assert next(iterator).slug == "a"
    with pytest.raises(TenantExists, match="'b'"):
        next(iterator)
    assert set(tenants.slugs()) == {"a", "b"}
    assert [each.slug for each in tenants.create_many(["a", "b", "c", "c"], exist_ok=True)] == ["a", "b", "c", "c"]


def test_many_are_created_concurrently_from_both_ends(tenants: Tenancy) -> None:
    tenants.init()
    slugs = [f"t{number}" for number in range(30)]
    both: list[Callable[[], list[UUID]]] = [
        lambda: [each.id for each in tenants.create_many(slugs, exist_ok=True)],
        lambda: [each.id for each in tenants.create_many(slugs[::-1], exist_ok=True)][::-1],
    ]
    one, other = run_together(both)
    assert one == other


def test_application_with_own_tables(fleet: MakeFleet, url: str) -> None:
    tenants = fleet(Kennel, Notes)
    acme = tenants.create("acme")
    acme.get(Notes).note()
    assert any(name.endswith("notes_notes") for name in catalog.tenants(url))
    tenants.purge("acme")
    assert catalog.tenants(url) == set()


def test_registry_is_created_with_the_first_tenant(tenants: Tenancy) -> None:
    with pytest.raises(RegistryMissing, match="tenancy init"):
        tenants["acme"]
    with pytest.raises(RegistryMissing, match="tenancy init"):
        tenants.list()
    tenants.create("acme")
    assert [each["application"] for each in tenants.fleet.registry.fleet_settings()["applications"]] == [
        "Kennel",
        "Visits",
    ]


def test_registry_is_created_without_code(url: str) -> None:
    with Tenancy(env={"SQLALCHEMY_URL": url}) as operator:
        operator.init()
        operator.init()
        assert operator.list() == []
        with pytest.raises(TenancyError, match="has no applications"):
            operator.create("acme")
        with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants:
            tenants.init()
        assert operator.create("acme").status == "active"


def test_concurrent_init(fleet: MakeFleet) -> None:
    fleets = [fleet() for _ in range(8)]
    run_together([each.init for each in fleets])
    assert len({each.fleet.registry.fleet_settings()["hash_key"] for each in fleets}) == 1


def test_registry_may_have_any_name(fleet: MakeFleet, url: str) -> None:
    tenants = fleet(TENANCY_CONTROL_SCHEMA='100% "Control"; x')
    tenants.create("acme").get(Kennel).register("Fido")
    tenants.purge("acme")
    assert catalog.tenants(url, '100% "Control"; x') == set()


def test_application_may_be_named_registry(fleet: MakeFleet) -> None:
    tenants = fleet(Registry)
    assert tenants.create("acme").get(Registry).name == "Registry"


def test_two_applications_with_one_name_are_refused(url: str) -> None:
    with pytest.raises(TenancyError, match="Two applications have the name 'Registry'"):
        Tenancy(applications=[Registry, OtherRegistry], env={"SQLALCHEMY_URL": url})


def test_unregistered_application_and_unknown_tenant_are_refused(tenants: Tenancy) -> None:
    acme = tenants.create("acme")
    with pytest.raises(NotRegistered, match="'Notes'"):
        acme.get(Notes)
    with pytest.raises(TenantNotFound, match="no tenant 'globex'"):
        tenants.application(Kennel, "globex")


def test_closed_fleet_is_named_in_the_error(fleet: MakeFleet) -> None:
    tenants = fleet()
    acme = tenants.create("acme")
    kennel = acme.get(Kennel)
    tenants.close()
    tenants.close()
    assert "registry" in repr(tenants)
    calls: list[Callable[[], object]] = [
        lambda: tenants.create("globex"),
        lambda: list(tenants.create_many(["globex"])),
        lambda: tenants.adopt("globex"),
        lambda: tenants.suspend("acme"),
        tenants.list,
    ]
    for call in calls:
        with pytest.raises(TenancyError, match=r"closed.*Construct another one"):
            call()
    with pytest.raises(Exception, match="closed"):
        kennel.register("Fido")


def test_history_of_an_unknown_tenant(tenants: Tenancy) -> None:
    tenants.init()
    with pytest.raises(TenantNotFound):
        tenants.history(str(uuid4()))

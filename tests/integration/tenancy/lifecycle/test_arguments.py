"""Wrong arguments, closed fleets, and the repr of objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenancy, TenantRequest
from tenancy.errors import InvalidArgument, TenancyClosed, TenancyError
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import by_header, by_host, by_path
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel, Visits
from tests.samples.training_school.system import SYSTEM
from tests.samples.training_school.views import DogCounters

Call = Callable[[Any], object]


@pytest.fixture
def url(sqlite_url: str) -> str:
    """The database makes no difference here."""
    return sqlite_url


def methods() -> Iterator[tuple[str, list[inspect.Parameter]]]:
    """Yield a fleet's public methods that require arguments, with those parameters."""
    for name, method in inspect.getmembers(Tenancy, inspect.isfunction):
        if (not name.startswith("_") or name == "__getitem__") and name not in ("close", "application_specs"):
            given = list(inspect.signature(method).parameters.values())[1:]
            yield name, [each for each in given if each.default is each.empty and each.kind is not each.VAR_KEYWORD]


def use(result: Any) -> None:
    """Exhaust a generator."""
    if inspect.isgenerator(result):
        list(result)


@pytest.mark.parametrize("wrong", [object(), None, 5, int])
def test_a_wrong_type_is_refused_by_every_method(tenants: Tenancy, wrong: object) -> None:
    tenants.create("acme")
    asked = []
    for name, parameters in methods():
        if parameters:
            asked.append(name)
            with pytest.raises(InvalidArgument, match="Pass"):
                use(getattr(tenants, name)(*[wrong] * len(parameters)))
    assert {"__getitem__", "create", "suspend", "purge_many", "scope", "env", "application", "project"} <= set(asked)
    assert tenants.slugs() == ["acme"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tenants: tenants["acme"].get(int), "The application is the class int"),
        (lambda tenants: tenants["acme"].get("Kennel"), "of type str. Pass its class"),
        (lambda tenants: tenants.application(Kennel, 5), "The tenant is of type int"),
        (lambda tenants: list(tenants.create_many("globex")), "a list"),
        (lambda tenants: list(tenants.create_many([5])), "its slug or a TenantRequest"),
        (lambda tenants: list(tenants.purge_many("acme")), "a list"),
        (lambda tenants: tenants.create("globex", name=5), "The name is of type int"),
        (lambda tenants: tenants.create("globex", metadata="plan"), "The metadata is of type str"),
        (lambda tenants: tenants.create("globex", metadata=["plan"]), "The metadata is of type list"),
        (lambda tenants: tenants.create("globex", request_id=5), "The request id is of type int"),
        (lambda tenants: tenants.adopt("globex", table_prefix=5), "The table prefix is of type int"),
        (lambda tenants: tenants.rename("acme", 5), "The slug is of type int"),
        (lambda tenants: tenants.rename("acme", name=5), "The name is of type int"),
        (lambda tenants: tenants.suspend("acme", reason=5), "The reason is of type int"),
        (lambda tenants: tenants.suspend("acme", reads="yes"), "reads is of type str"),
        (lambda tenants: tenants.list("happy"), "Pass one of: provisioning, active"),
        (lambda tenants: tenants.followers.retry(5), "The slug is of type int"),
        (lambda tenants: tenants.followers.status("1"), "The interval is of type str"),
        (lambda tenants: tenants.followers.skip("acme", "Reports", "1"), "The notification id is of type str"),
        (lambda tenants: tenants.runner("4"), "workers is of type str"),
        (lambda _: ASGIMiddleware(None, tenants=Kennel, resolver=by_path()), "tenants is the class Kennel"),  # type: ignore[arg-type]
        (lambda tenants: ASGIMiddleware(None, tenants=tenants, resolver="/t"), "resolver is of type str"),  # type: ignore[arg-type]
        (lambda tenants: ASGIMiddleware(None, tenants=tenants, resolver=by_path(), public=None), "public is None"),  # type: ignore[arg-type]
        (lambda _: by_host(None), "The domain is None"),  # type: ignore[arg-type]
        (lambda _: by_path(5), "The prefix is of type int"),  # type: ignore[arg-type]
        (lambda _: by_header(None), "The header name is None"),  # type: ignore[arg-type]
        (lambda _: Tenancy(applications=Kennel), "Pass a list: Tenancy"),  # type: ignore[arg-type]
        (lambda _: Tenancy(applications="Kennel"), "Pass a list: Tenancy"),  # type: ignore[arg-type]
        (lambda _: Tenancy(applications=None), "Pass a list: Tenancy"),  # type: ignore[arg-type]
        (lambda _: Tenancy(applications=[int]), "An application is the class int"),  # type: ignore[list-item]
        (lambda _: Tenancy(system=[[Kennel]]), "Pass a System"),  # type: ignore[arg-type]
        (lambda _: Tenancy(env="sqlite:///x.db"), "env is of type str"),  # type: ignore[arg-type]
        (lambda _: Tenancy(env={"SQLALCHEMY_POOL_SIZE": 5}), "Pass all values as text"),  # type: ignore[dict-item]
    ],
)
def test_a_wrong_argument_is_named_with_the_remedy(tenants: Tenancy, call: Call, message: str) -> None:
    tenants.create("acme")
    with pytest.raises(InvalidArgument, match=message) as raised:
        call(tenants)
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, ValueError)
    assert tenants.slugs() == ["acme"]


def test_a_tenant_read_by_the_registry_alone_names_the_remedy(tenants: Tenancy) -> None:
    tenants.create("acme")
    (read,) = tenants.fleet.registry.list()
    for call in (lambda: read.get(Kennel), read.env):
        with pytest.raises(TenancyError, match=r"Get it from the Tenancy object: tenants\[slug\]"):
            call()


def test_a_verb_with_a_tenant_object_affects_no_other_tenant_with_its_slug(tenants: Tenancy) -> None:
    acme = tenants.create("acme")
    assert tenants.suspend(acme).status == "suspended"
    renamed = tenants.rename(acme, "apex")
    tenants.create("acme")
    assert tenants.resume(acme).slug == "apex"
    with pytest.raises(TenancyError, match="no tenant 'acme'"):
        tenants.rename(acme, "other")
    assert tenants.rename(renamed, "other").id == acme.id
    assert sorted(tenants.slugs()) == ["acme", "other"]


VALUES: dict[str, Any] = {
    "slug": "new",
    "tenant": "acme",
    "tenants": ["acme"],
    "cls": Kennel,
    "events": "suspended",
    "application": Kennel,
    "projection": DogCounters,
    "view": SQLAlchemyTrackingRecorder,
    "tenant_id": UUID(int=1),
}


@pytest.mark.parametrize("as_tenant", [False, True])
def test_a_closed_fleet_refuses_calls_while_another_one_is_open(fleet: MakeFleet, as_tenant: bool) -> None:
    tenants, other = fleet(), fleet()
    acme = tenants.create("acme")
    with tenants.scope("acme"):
        tenants.close()
        values = {**VALUES, "tenant": acme, "tenants": [acme]} if as_tenant else VALUES
        for name, parameters in methods():
            if name in ("across", "project", "projection"):
                continue  # this fleet has no projections
            with pytest.raises(TenancyClosed, match="Construct another one"):
                use(getattr(tenants, name)(*[values[each.name] for each in parameters]))
        calls: list[Callable[[], object]] = [
            lambda: tenants["acme"],
            lambda: "acme" in tenants,
            lambda: list(tenants),
            lambda: tenants.current,
            lambda: tenants.fleet.registry,
            lambda: tenants.followers,
            lambda: acme.get(Kennel),
            acme.env,
        ]
        for call in calls:
            with pytest.raises(TenancyClosed):
                call()
    assert [tenant.slug for tenant in other] == ["acme"]


def test_reprs(fleet: MakeFleet, url: str) -> None:
    tenants = fleet(Kennel, Visits)
    where = f"sqlite+pysqlite:///{url.removeprefix('sqlite:///')}"
    assert repr(tenants) == f"Tenancy(Kennel, Visits; the registry in {where})"
    assert repr(tenants.fleet.registry) == f"Registry({where})"
    acme = tenants.create("acme", name="Acme Ltd", metadata={"plan": "gold"})
    assert "slug='acme', name='Acme Ltd'" in repr(acme)
    assert "gold" not in repr(acme)
    assert "kennel_events" in repr(acme.get(Kennel).recorder)
    tenants.close()
    assert repr(tenants).endswith("; closed)")
    with Tenancy(env={"SQLALCHEMY_URL": url}) as without_code:
        assert repr(without_code) == f"Tenancy(no applications; the registry in {where})"
        assert repr(without_code.followers).startswith("FollowerMonitor(none; ")
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as driver:
        assert "Diaries of TrainingSchool" in repr(driver.followers)
        runner = driver.runner(workers=2)
        assert repr(runner).endswith("; 2 workers; not started)")
        with runner:
            assert repr(runner).endswith("; started)")
        assert repr(runner).endswith("; stopped)")


def test_requests_are_accepted_beside_slugs(tenants: Tenancy) -> None:
    made = list(tenants.create_many(["acme", TenantRequest(slug="globex", name="Globex")]))
    assert [tenant.name for tenant in made] == ["acme", "Globex"]

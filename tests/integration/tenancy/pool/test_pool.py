"""Tenants for tests are as new: in used places, whatever the test before has done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application

from tenancy import LifecycleEvent, Tenancy, Tenant
from tenancy.errors import HookFailed, TenantExists, TenantPurged
from tenancy.operations.doctor import examine
from tenancy.testing.following import follow
from tenancy.testing.pool import TenantPool
from tests.samples.kennels import SYSTEM, Kennel, Visits
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import SYSTEM as SCHOOL
from tests.samples.training_school.system import Diaries
from tests.samples.training_school.totals import CountAll, Totals
from tests.samples.training_school.views import CountersView, DogCounters

pytestmark = pytest.mark.usefixtures("no_purge_delay")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    """A fleet with a follower."""
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as fleet:
        yield fleet


@pytest.fixture
def pool(tenants: Tenancy) -> TenantPool:
    """The pool of the fleet."""
    return TenantPool(tenants)


def first_id(application: Application[UUID]) -> int:
    """Return the id of the first event."""
    return application.recorder.select_notifications(start=None, limit=1)[0].id


def places(pool: TenantPool) -> int:
    """Return the number of places that were created and not dropped."""
    return len(pool._by_placement)  # noqa: SLF001 (nothing else shows it)


def test_tenant_in_a_used_place_is_new(tenants: Tenancy, pool: TenantPool) -> None:
    seen = set()
    for number in range(7):
        tenant = pool.claim("Acme", name="Acme Ltd", metadata={"number": number})
        assert tenant == tenants["acme"] == tenants.list()[0]
        assert (tenant.status, tenant.name, tenant.metadata) == ("active", "Acme Ltd", {"number": number})
        assert [(each.version, each.action) for each in tenants.history("acme")] == [(1, "create"), (2, "activate")]
        kennel = tenant.get(Kennel)
        assert kennel.names() == []
        kennel.adopt_house_dog("Fido")  # its id is the same for all tenants
        kennel.take_snapshot(UUID(int=1))
        assert first_id(kennel) == 1
        assert follow(tenants) == 1
        assert first_id(tenant.get(Visits)) == 1
        tenants.suspend("acme", reason="invoice")
        seen.add(tenant.id)
        pool.clear()
        with pytest.raises(TenantPurged):
            kennel.register("Rex")
        assert tenants.list() == []
        assert "acme" not in tenants
    assert len(seen) == 7
    assert places(pool) == 2


def test_several_tenants_of_one_test(tenants: Tenancy, pool: TenantPool) -> None:
    for _ in range(2):
        made = [pool.claim(f"t{number}") for number in range(5)]
        assert len({tenant.placement for tenant in made}) == 5
        for tenant in made:
            tenant.get(Kennel).register(tenant.slug)
        assert [tenant.get(Kennel).names() for tenant in tenants] == [[f"t{number}"] for number in range(5)]
        with pytest.raises(TenantExists):
            pool.claim("t3")
        pool.clear()
    assert places(pool) <= 8


def test_tenants_that_the_service_creates_are_removed(tenants: Tenancy, pool: TenantPool) -> None:
    tenants.create("acme", request_id="r-1").get(Kennel).register("Fido")
    pool.clear()
    again = tenants.create("acme", request_id="r-1")
    assert again.get(Kennel).names() == []
    again.get(Kennel).register("Rex")
    pool.clear()
    before = places(pool)
    assert pool.claim("umbra").get(Kennel).names() == []
    assert places(pool) == before, "its place is used again"


@pytest.mark.parametrize("verb", ["purge", "delete", "archive"])
def test_after_each_end_of_a_tenant(tenants: Tenancy, pool: TenantPool, verb: str) -> None:
    for _ in range(3):
        tenant = pool.claim("acme")
        tenant.get(Kennel).register("Fido")
        getattr(tenants, verb)(tenant)
        pool.clear()
    assert pool.claim("acme").get(Kennel).names() == []
    problems = [each for each in examine(tenants.fleet) if each.level == "failure" and each.tenant is not None]
    assert problems == []


def test_hooks_and_reactions(tenants: Tenancy, pool: TenantPool) -> None:
    mails: list[tuple[str, str | None]] = []
    fails = False

    @tenants.on_created
    def seed(tenant: Tenant) -> None:
        tenant.get(Kennel).register("Mascot")
        if fails:
            raise ValueError

    @tenants.after()
    def mail(event: LifecycleEvent) -> None:
        mails.append((event.name, event.slug))

    for slug in ("acme", "globex", "umbra", "acme"):
        assert pool.claim(slug).get(Kennel).names() == ["Mascot"]
        if slug != "globex":
            follow(tenants)
        pool.clear()
    assert mails == [("activated", "acme"), ("activated", "umbra"), ("activated", "acme")]
    fails = True
    with pytest.raises(HookFailed):
        pool.claim("acme")
    pool.clear()
    fails = False
    assert pool.claim("acme").get(Kennel).names() == ["Mascot"]


def test_follow_raises_the_error_of_a_reaction(tenants: Tenancy, pool: TenantPool) -> None:
    error: Exception | None = ValueError("a wrong mail")

    @tenants.after("activated")
    def mail(_: LifecycleEvent) -> None:
        if error is not None:
            raise error

    tenants.init()
    pool.claim("acme")
    with pytest.raises(ValueError, match="a wrong mail"):
        follow(tenants)
    error = None
    assert follow(tenants) == 1
    assert follow(tenants) == 0


def test_views_and_followers_of_several_levels(url: str) -> None:
    with Tenancy(system=SCHOOL, env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.project(TrainingSchool, DogCounters, CountersView)
        tenants.project_across(TrainingSchool, CountAll, Totals)
        pool = TenantPool(tenants)
        for _ in range(3):
            acme, globex = pool.claim("acme"), pool.claim("globex")
            for tenant in (acme, globex):
                dog = tenant.get(TrainingSchool).register("Fido")
                tenant.get(TrainingSchool).teach(dog, "sit")
                follow(tenants)
                assert tenant.get(Diaries).entries(dog)
                view = tenants.projection(DogCounters, tenant).view
                assert (view.get_created_event_counter(), view.get_subsequent_event_counter()) == (1, 1)
            assert follow(tenants) == 0
            pool.clear()


def test_tables_with_foreign_keys_and_sequences(postgres_url: str) -> None:
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": postgres_url}) as tenants:
        pool = TenantPool(tenants)
        engine = sa.create_engine(postgres_url)

        def execute(statement: str, tenant: Tenant) -> Any:
            with engine.begin() as connection:
                found = connection.exec_driver_sql(statement.format(f'"{tenant.placement.schema}"'))
                return found.scalar() if found.returns_rows else None

        tenant = tenants.create("acme")
        execute("CREATE TABLE {}.owners (id SERIAL PRIMARY KEY)", tenant)
        execute("CREATE TABLE {0}.cats (id SERIAL, owner INTEGER REFERENCES {0}.owners)", tenant)
        placements = {tenant.placement}
        for _ in range(2):
            execute("INSERT INTO {}.owners DEFAULT VALUES", tenant)
            execute("INSERT INTO {}.cats (owner) VALUES (1)", tenant)
            tenant.get(Kennel).register("Fido")
            pool.clear()
            tenant = pool.claim("acme")
            placements.add(tenant.placement)
            assert execute("SELECT count(*) FROM {}.cats", tenant) == 0
            assert execute("INSERT INTO {}.owners DEFAULT VALUES RETURNING id", tenant) == 1
            tenant.get(Kennel).register("Rex")
            assert first_id(tenant.get(Kennel)) == 1
            pool.clear()
            tenant = pool.claim("acme")
        assert len(placements) == 1
        engine.dispose()

"""Tenants are found by conditions, page by page, while others come and go."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from tenancy import Tenancy, Tenant
from tenancy.errors import InvalidArgument, TenantNotFound
from tenancy.model.placement import Placement
from tenancy.operations.jobs import TenantSelection
from tenancy.registry.tables import to_row

pytestmark = pytest.mark.usefixtures("no_purge_delay")

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def many(tenants: Tenancy) -> Tenancy:
    """Tenants a to f, created one minute after the other in another order than that of their slugs."""
    tenants.init()
    metadata: dict[str, dict[str, Any]] = {
        "b": {"plan": "free", "seats": 5},
        "a": {"plan": "free", "seats": "5"},
        "d": {"plan": "gold", "trial": True},
        "c": {"plan": "free", "limits": {"b": 1, "a": [None]}},
        "f": {},
        "e": {"plan": "free"},
    }
    add(tenants, metadata.items())
    tenants.suspend("c")
    return tenants


def add(tenants: Tenancy, wanted: Any) -> None:
    """Register tenants without tables; each is a minute younger than the one before."""
    registry = tenants.fleet.registry
    rows = []
    for number, (slug, metadata) in enumerate(wanted):
        tenant = Tenant(
            id=uuid4(),
            slug=slug,
            name=slug,
            status="active",  # type: ignore[arg-type]
            reads=False,
            placement=Placement(None, f"{slug}_"),
            adopted=False,
            created_at=START + timedelta(minutes=number),
            changed_at=START,
            metadata=metadata,
        )
        rows.append(tenant)
    registry.add(rows, None)
    with registry.writing_rows() as session:
        session.execute(sa.update(registry.rows.tenants).values(status="active"))


def slugs(found: Sequence[Tenant]) -> str:
    return "".join(tenant.slug for tenant in found)


def test_conditions(many: Tenancy) -> None:
    assert slugs(many.list()) == slugs(list(many)) == "abcdef"
    assert slugs(many.list("suspended")) == "c"
    assert slugs(many.list(where={"plan": "free"})) == "abce"
    assert slugs(many.list("active", where={"plan": "free"})) == "abe"
    assert slugs(many.list(where={"plan": "free", "seats": "5"})) == "ab", "a text stands for 5 and for '5'"
    assert slugs(many.list(where={"seats": 5})) == "b"
    assert slugs(many.list(where={"trial": True})) == slugs(many.list(where={"trial": "true"})) == "d"
    assert slugs(many.list(where={"limits": {"a": [None], "b": 1}})) == "c"
    assert slugs(many.list(where={"nothing": None})) == ""
    assert slugs(many.list(created_after=START + timedelta(minutes=3))) == "ef"


def test_order(many: Tenancy) -> None:
    assert slugs(many.list(order="-slug")) == "fedcba"
    assert slugs(many.list(order="created")) == "badcfe"
    assert slugs(many.list(order="-created", limit=3)) == "efc"


@pytest.mark.parametrize("order", ["slug", "-slug", "created", "-created"])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("where", [{}, {"plan": "free"}])
def test_pages_have_each_tenant_once(many: Tenancy, order: Any, size: int, where: dict[str, str]) -> None:
    def pages(key: Callable[[Tenant], Any]) -> Iterator[Sequence[Tenant]]:
        after = None
        while page := many.list(order=order, limit=size, after=after, where=where):
            assert len(page) <= size
            yield page
            after = key(page[-1])

    everything = slugs(many.list(order=order, where=where))
    assert "".join(map(slugs, pages(lambda tenant: tenant))) == everything
    by_text = (lambda tenant: tenant.slug) if order.endswith("slug") else (lambda tenant: str(tenant.id))
    assert "".join(map(slugs, pages(by_text))) == everything


@pytest.mark.parametrize("order", ["slug", "created"])
def test_pages_do_not_shift_while_tenants_come_and_go(many: Tenancy, order: Any) -> None:
    first = many.list(order=order, limit=3)
    rest = slugs(many.list(order=order)[3:])
    for tenant in first:
        many.purge(tenant)
    add(many, [("0", {})])  # in slug order, before all others
    with many.fleet.registry.writing_rows() as session:
        rows = many.fleet.registry.rows.tenants
        early = START - timedelta(days=1)
        session.execute(sa.update(rows).where(rows.c.slug == "0").values(created_at=early))
    assert slugs(many.list(order=order, after=first[-1])) == rest
    last = first[-1].slug if order == "slug" else str(first[-1].id)
    assert slugs(many.list(order=order, after=last)) == rest, "also after one that was purged"


def test_tenants_of_the_same_time_are_ordered_by_id(many: Tenancy) -> None:
    with many.fleet.registry.writing_rows() as session:
        session.execute(sa.update(many.fleet.registry.rows.tenants).values(created_at=START))
    found: list[UUID] = []
    after = None
    while page := many.list(order="-created", limit=2, after=after):
        found += [tenant.id for tenant in page]
        after = page[-1]
    assert found == sorted(found, reverse=True)
    assert len(found) == 6


def test_jobs_choose_by_the_same_rules(many: Tenancy) -> None:
    for where in ({"plan": "free"}, {"seats": "5"}, {"seats": 5}, {"trial": "true"}):
        chosen = TenantSelection(where=where).tenants(many.fleet.registry)
        assert slugs(chosen) == slugs(many.list(where=where))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"status": "happy"}, "There is no status 'happy'. Pass one of: provisioning, active"),
        ({"where": ["plan"]}, "The where is of type list"),
        ({"where": {"plan": float("nan")}}, r'where\["plan"\] is NaN'),
        ({"where": {1: "free"}}, "where has a key of type int"),
        ({"order": "name"}, "There is no order 'name'. Pass one of: slug, -slug, created, -created"),
        ({"limit": 0}, "limit is less than 1"),
        ({"limit": "5"}, "limit is of type str"),
        ({"created_after": datetime(2026, 1, 1)}, "created_after has no time zone"),  # noqa: DTZ001 (refused)
        ({"created_after": "2026-01-01"}, "created_after is of type str"),
        ({"after": 5}, "after is of type int"),
        ({"after": "acme", "order": "created"}, "continue after an id"),
    ],
)
def test_other_conditions_are_refused(arguments: dict[str, Any], message: str, tenants: Tenancy) -> None:
    tenants.init()
    with pytest.raises(InvalidArgument, match=message):
        tenants.list(**arguments)


def test_an_unknown_tenant_to_continue_after_is_an_error(tenants: Tenancy) -> None:
    tenants.init()
    with pytest.raises(TenantNotFound):
        tenants.list(order="created", after=str(uuid4()))


def test_ten_thousand_tenants_need_the_memory_of_a_page(sqlite_url: str) -> None:
    def rows(tenants: Tenancy, count: int) -> Iterator[dict[str, Any]]:
        (first,) = tenants.list()
        for number in range(count):
            placement = Placement(None, f"p{number}_")
            each = replace(first, id=uuid4(), slug=f"tenant-{number}", placement=placement, metadata={"n": number})
            yield to_row(each)

    with Tenancy(env={"SQLALCHEMY_URL": sqlite_url}) as tenants:
        tenants.fleet.registry.init({})
        add(tenants, [("first", {})])
        registry = tenants.fleet.registry
        with registry.writing_rows() as session:
            session.execute(sa.insert(registry.rows.tenants), list(rows(tenants, 10_000)))

        def peak(call: Callable[[], object]) -> int:
            tracemalloc.start()
            call()
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return found

        assert len(tenants.list(limit=500)) == 500  # warm caches
        one_page = peak(lambda: tenants.list(limit=500))
        counted = []
        every = peak(lambda: counted.append(sum(1 for _ in tenants)))
        assert counted == [10_001]
        assert every < 3 * one_page
        assert peak(lambda: tenants.list(where={"n": 9_999})) < 3 * one_page

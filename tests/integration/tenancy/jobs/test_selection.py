"""Which tenants a job is about, and how many queries it takes to plan a large one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.errors import TenantNotFound
from tenancy.model.placement import Placement
from tenancy.operations.jobs import JobOptions, TenantSelection
from tenancy.operations.jobs.planning import plan_job, record_job
from tenancy.operations.jobs.store import JobStore
from tenancy.registry.tables import to_row
from tests.samples.counting_job import Count, Kennel


@pytest.fixture
def many(sqlite_url: str) -> Iterator[Tenancy]:
    """A fleet with tenants of all kinds."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": sqlite_url}) as tenants:
        metadata: dict[str, dict[str, Any]] = {
            "acme": {"plan": "free", "seats": 5},
            "globex": {"plan": "free", "seats": "5", "trial": True},
            "initech": {"plan": "gold", "tags": ["a", {"b": 1, "c": None}]},
            "umbrella": {},
        }
        for slug, each in metadata.items():
            tenants.create(slug, metadata=each)
        tenants.suspend("globex")
        yield tenants


def slugs(tenants: Tenancy, **conditions: Any) -> list[str]:
    selection = TenantSelection(**conditions)
    return [tenant.slug for tenant in selection.tenants(tenants.fleet.registry)]


def test_by_default_all_that_have_tables(many: Tenancy) -> None:
    assert slugs(many) == ["acme", "globex", "initech", "umbrella"]
    rows = many.fleet.registry.rows.tenants
    for slug, status in (("umbrella", "provisioning"), ("acme", "purging")):
        with many.fleet.registry.writing_rows() as session:
            session.execute(sa.update(rows).where(rows.c.slug == slug).values(status=status))
    assert slugs(many) == ["globex", "initech"]
    assert slugs(many, slugs=["acme", "initech"]) == ["initech"]


def test_slugs_and_ids(many: Tenancy) -> None:
    chosen = ["initech", str(many["acme"].id), "ACME", "acme"]
    assert slugs(many, slugs=chosen) == ["acme", "initech"]
    assert slugs(many, slugs=chosen, exclude=["Initech"]) == ["acme"]
    assert slugs(many, exclude=[str(many["acme"].id), "globex"]) == ["initech", "umbrella"]


@pytest.mark.parametrize("unknown", ["nope", "", "0d6ac54b-1f4d-4c0f-8d5f-0b4b5b7a1c11"])
@pytest.mark.parametrize("argument", ["slugs", "exclude"])
def test_an_unknown_tenant_is_an_error(many: Tenancy, argument: str, unknown: str) -> None:
    with pytest.raises(TenantNotFound):
        slugs(many, **{argument: ["acme", unknown]})


def test_status(many: Tenancy) -> None:
    assert slugs(many, status="suspended") == ["globex"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"plan": "free"}, ["acme", "globex"]),
        ({"plan": '"free"'}, []),
        ({"seats": "5"}, ["acme", "globex"]),
        ({"trial": "true"}, ["globex"]),
        ({"trial": "True"}, []),
        ({"tags": '["a", {"c": null, "b": 1}]'}, ["initech"]),
        ({"plan": "free", "trial": "true"}, ["globex"]),
        ({"missing": "null"}, []),
    ],
)
def test_metadata(many: Tenancy, where: Mapping[str, str], expected: list[str]) -> None:
    assert slugs(many, where=where) == expected


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Yield the statements of all engines inside the block."""
    statements: list[str] = []

    def count(*arguments: Any) -> None:
        statements.append(arguments[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_ten_thousand_tenants_take_few_statements(database: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{database}_url")
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants:
        first = tenants.create("tenant-00000")
        registry = tenants.fleet.registry
        rows = [
            to_row(replace(first, id=uuid4(), slug=f"tenant-{number:05}", placement=Placement(f"schema-{number}", "")))
            for number in range(1, 10_000)
        ]
        with registry.writing_rows() as session:
            session.execute(sa.insert(registry.rows.tenants), rows)
        with counted_statements() as statements:
            found = TenantSelection().tenants(registry)
            operation, items = plan_job(tenants.fleet, Count, {}, found)
            job_id = record_job(tenants.fleet, operation, items, JobOptions(canary=5), None)
            job = JobStore(registry).get(job_id)
        assert job.counts.pending == 10_000
        # SQLite binds few values per statement, so its inserts are one statement for each batch of rows.
        assert len(statements) < 200, len(statements)
        (canary, *_) = tenants.jobs.items(job_id)
        assert (canary.tenant, canary.is_canary) == ("tenant-00000", True)

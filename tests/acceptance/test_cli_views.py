"""The commands for views over all tenants, as operators use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tests.acceptance.commands import Command
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.totals import CountAll, Totals
from tests.support.fleets import ACROSS_APP, command_fleet_across

SLUGS = ["acme", "globex"]


@pytest.fixture
def tenancy(sqlite_url: str) -> Command:
    """The command on a database with two tenants."""
    return Command(sqlite_url, ACROSS_APP)


@pytest.fixture
def tenants(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tenancy]:
    """The same fleet in this process, with events that no runner has processed."""
    monkeypatch.setenv("SQLALCHEMY_URL", sqlite_url)
    with command_fleet_across() as fleet:
        for slug in SLUGS:
            fleet.create(slug).get(TrainingSchool).register("Rex", "sit")
        yield fleet


def test_view_is_rebuilt(tenancy: Command, tenants: Tenancy) -> None:
    view = tenants.across(CountAll).view
    assert isinstance(view, Totals)
    with view.transaction() as session:
        session.execute(sa.insert(view.totals).values(tenant_id=tenants["acme"].id, dogs=7, tricks=7))
    plan = tenancy.ok("rebuild", "CountAll", "--dry-run", "--json").json
    assert [(each["tenant"], each["summary"]) for each in plan["items"]] == [
        (slug, "rebuild the view over all tenants of CountAll") for slug in SLUGS
    ]
    outcome = tenancy.ok("rebuild", "CountAll", "--canary", "1", "--workers", "16", "--actor", "crm:7")
    (job,) = tenants.jobs.list()
    assert outcome.out == f"Job {job.id} (rebuild): 2 done.\n"
    assert (job.actor, job.phase) == ("crm:7", "finish")
    assert view.all() == {tenant.id: (1, 1) for tenant in tenants}


def test_refused_arguments(tenancy: Command, tenants: Tenancy) -> None:
    assert "Pass one of: CountAll, DogCounters." in tenancy("rebuild", "Totals").err
    for arguments in (["acme"], ["--status", "active"], ["--limit", "1"], ["--except", "acme"]):
        outcome = tenancy("rebuild", "CountAll", *arguments)
        assert outcome.code
        assert "cannot be rebuilt for some of them" in outcome.err
    assert "cannot be kept" in tenancy("rebuild", "CountAll", "--keep-old").err
    assert "are not kept" in tenancy("rebuild", "CountAll", "--drop-old").err
    assert tenants.jobs.list() == []


def test_migrate_creates_the_tables(tenancy: Command, tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREATE_TABLE", "no")
    states = [(each["follower"], each["state"]) for each in tenancy.ok("runner", "status", "--json").json]
    assert sorted(states) == [("CountAll", "behind")] * 2 + [("DogCounters", "behind")] * 2
    assert not tenants.across(CountAll).unchecked().has_tables()
    assert tenancy.ok("migrate").out == "Nothing to do.\n"
    assert tenants.across(CountAll).unchecked().has_tables()

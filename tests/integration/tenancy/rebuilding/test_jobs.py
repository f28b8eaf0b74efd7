"""Rebuilds of many tenants: by a call, by the command, and by migrate for a view with another version."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.errors import NotRegistered
from tenancy.operations.jobs import JobOptions, TenantSelection
from tenancy.operations.jobs.claims import Claims
from tenancy.operations.jobs.planning import plan_job, record_job
from tenancy.operations.jobs.store import JobStore
from tenancy.operations.rebuilding import Rebuild, processes_for
from tests.samples.training_school.ledger import KeepLedger, Ledger
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.rebuilds import expected_content, fill, ledger, ledger_fleet, spaces

BOTH = pytest.mark.parametrize("place", ["psycopg", "sqlite"], indirect=True)


def spoil(tenants: Tenancy, slug: str) -> None:
    view = ledger(tenants, slug)
    with view.transaction() as session:
        session.execute(sa.delete(view.tricks))


@pytest.fixture
def several(tenants: Tenancy) -> Tenancy:
    """The fleet with three tenants, whose ledgers have lost their tricks."""
    for slug in ("globex", "initech"):
        tenants.create(slug)
        fill(tenants, slug, 3)
    with tenants.runner() as runner:
        for slug in tenants.slugs():
            runner.wait(slug)
    for slug in tenants.slugs():
        spoil(tenants, slug)
    return tenants


@BOTH
def test_rebuild_of_all_tenants_that_are_not_offline(several: Tenancy) -> None:
    several.archive("globex")
    several.suspend("initech")
    report = several.rebuild(KeepLedger, keep_old=True, actor="user-7")
    assert report.job is not None
    assert (report.job.kind, report.job.status, report.job.counts.done) == ("rebuild", "done", 2)
    several.resume("initech")
    several.restore("globex")
    for slug in ("acme", "initech"):
        assert ledger(several, slug).content() == expected_content(several, slug)
        assert several.history(slug)[-1 if slug == "acme" else -2].actor == "user-7"
    assert ledger(several, "globex").totals().tricks == 0
    assert spaces(several)
    dropped = several.drop_replaced(KeepLedger, tenants=TenantSelection(exclude=["globex"]))
    assert dropped.job is not None
    assert dropped.job.counts.done == 2
    assert spaces(several) == []
    assert several.drop_replaced(KeepLedger).job is None


def test_rebuild_jobs_share_the_limit_of_the_workers(several: Tenancy) -> None:
    """For every eight workers one tenant, whichever job it is of."""
    registry = several.fleet.registry
    executors = []
    for workers in (4, 16):
        parameters = {"projection": "KeepLedger", "workers": workers}
        operation, items = plan_job(several.fleet, Rebuild, parameters, several.list())
        job_id = record_job(several.fleet, operation, items, JobOptions(), None)
        executors.append(Claims(registry, JobStore(registry).get(job_id), str(workers), operation.max_running))
    small, large = executors
    assert small.claim()
    assert small.claim() is None
    assert large.claim()
    assert large.claim() is None


def test_projection_that_is_not_registered(tenants: Tenancy) -> None:
    with pytest.raises(NotRegistered, match="DogCounters"):
        tenants.rebuild(DogCounters)


def test_one_tenant_at_a_time_for_eight_workers() -> None:
    assert [processes_for(workers) for workers in (1, 7, 8, 15, 16, 64)] == [1, 1, 1, 1, 2, 8]


class SecondLedger(Ledger):
    """The ledger, whose projection has been corrected."""

    version = 2


@BOTH
def test_view_with_another_version_is_rebuilt_by_migrate(several: Tenancy, place: tuple[str, dict[str, str]]) -> None:
    several.archive("globex")
    with ledger_fleet(*place, view=SecondLedger) as newer:
        report = newer.migrate()
        assert report.job is not None
        assert report.job.counts.done == 2
        for slug in ("acme", "initech"):
            assert ledger(newer, slug).content() == expected_content(newer, slug)
            assert newer[slug].versions.views == {KeepLedger.name: "2"}
        # A new tenant has it from the start, and one that was offline is taken up later.
        assert newer.create("umbrella").versions.views == {KeepLedger.name: "2"}
        assert newer.migrate().job is None
        newer.restore("globex")
        later = newer.migrate()
        assert later.job is not None
        assert later.job.counts.done == 1
        assert ledger(newer, "globex").content() == expected_content(newer, "globex")


class SecondCounters(CountersView):
    """A view with a version from the start."""

    version = "1"


@BOTH
def test_view_of_a_new_projection_is_not_rebuilt(place: tuple[str, dict[str, str]], tenants: Tenancy) -> None:
    """Its tables are created by the same migration, at its version."""
    url, settings = place
    with Tenancy(applications=list(tenants.applications.values()), env={"SQLALCHEMY_URL": url, **settings}) as newer:
        for registered in tenants.fleet.projections:
            newer.project(registered.application, registered.projection, registered.view)
        newer.project(registered.application, DogCounters, SecondCounters)
        assert newer.migrate().job is not None
        assert newer["acme"].versions.views == {DogCounters.name: "1"}
        assert [each.action for each in newer.history("acme")][-1] != "rebuild"

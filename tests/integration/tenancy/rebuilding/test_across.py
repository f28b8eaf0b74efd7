"""The view of a projection over all tenants is rebuilt beside the serving one, and replaces it at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import PersistenceError, Tracking

from tenancy import Tenancy, Tenant, TenantTracking
from tenancy.errors import InvalidArgument, TenancyError
from tenancy.operations.jobs import ItemSkipped, JobOptions, JobStatus, TenantSelection
from tenancy.operations.rebuilding import AcrossRebuilds, new_rebuild
from tenancy.storage.open_view import CLOSED
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.totals import CountAll, Totals
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.job_items import Item
from tests.support.loops import Loop

pytestmark = pytest.mark.usefixtures("no_purge_delay")

GHOSTS = 1000
TENANTS = ("acme", "globex", "Ünï-cödé")


@pytest.fixture(params=["sqlite", "schema", "prefix", "elsewhere"])
def place(request: pytest.FixtureRequest, tmp_path: Any) -> tuple[dict[str, str], str | None]:
    """The variables of a fleet on an empty database, and the URL of the view."""
    if request.param == "sqlite":
        return {"SQLALCHEMY_URL": request.getfixturevalue("sqlite_url")}, None
    env = {"SQLALCHEMY_URL": request.getfixturevalue("postgres_url")}
    if request.param == "prefix":
        env |= {"TENANCY_SCHEMA": "", "TENANCY_TABLE_PREFIX": "{tenant}_"}
    return env, f"sqlite:///{tmp_path / 'views.db'}" if request.param == "elsewhere" else None


@contextmanager
def open_fleet(place: tuple[dict[str, str], str | None], view: type[Totals] = Totals) -> Iterator[Tenancy]:
    """Yield a fleet with a projection over all tenants."""
    env, url = place
    with Tenancy(applications=[TrainingSchool], env=env) as tenants:
        tenants.project_across(TrainingSchool, CountAll, view, url=url)
        yield tenants


@pytest.fixture
def tenants(place: tuple[dict[str, str], str | None]) -> Iterator[Tenancy]:
    """A fleet with three tenants whose events are in the view."""
    with open_fleet(place) as tenants:
        for number, slug in enumerate(TENANTS):
            tenants.create(slug).get(TrainingSchool).register("Rex", *["sit"] * (10 + number))
        follow(tenants)
        yield tenants


def follow(tenants: Tenancy) -> None:
    """Run the runner until all active tenants' events are in the view."""
    with tenants.runner(workers=2) as runner:
        for tenant in tenants.list("active"):
            runner.wait(tenant.slug, DEADLINE_SECONDS)


def totals(tenants: Tenancy) -> dict[UUID, tuple[int, int]]:
    """Return the view's rows."""
    view = tenants.across(CountAll).view
    assert isinstance(view, Totals)
    return view.all()


def expected(tenants: Tenancy) -> dict[UUID, tuple[int, int]]:
    """Return what a projection of each tenant's events, one after the other, counts."""
    found = {}
    for tenant in tenants:
        events = tenant.get(TrainingSchool).recorder.select_notifications(1, 10**6)
        dogs = sum(each.topic.endswith("Dog.Registered") for each in events)
        tricks = sum(each.topic.endswith("Dog.TrickAdded") for each in events)
        if dogs:
            found[tenant.id] = (dogs, tricks)
    return found


def haunt(tenants: Tenancy) -> None:
    """Add to each row what no event has added."""
    view = tenants.across(CountAll).view
    assert isinstance(view, Totals)
    with view.transaction() as session:
        session.execute(sa.update(view.totals).values(tricks=view.totals.c.tricks + GHOSTS))


def spaces(tenants: Tenancy) -> list[str]:
    """Return the objects in spaces of rebuilds."""
    across = tenants.across(CountAll)
    datastore = across.view.datastore
    names = [across.shadow_space, across.replaced_space]
    return [name for space in names for name in datastore.run(lambda e: across.replacer.names_in(e, space))]  # noqa: B023


def test_it_has_what_the_events_say(tenants: Tenancy) -> None:
    haunt(tenants)
    tenants.suspend("acme")
    tenants.archive("globex")
    report = tenants.rebuild(CountAll)
    assert report.is_success
    assert report.counts.done == 3
    tenants.resume("acme")
    tenants.restore("globex")
    assert totals(tenants) == expected(tenants)
    assert spaces(tenants) == []
    tenants["acme"].get(TrainingSchool).register("Bella", "sit")
    follow(tenants)
    assert totals(tenants) == expected(tenants)
    assert {each.state for each in tenants.followers.status()} == {"current"}


def test_twice(tenants: Tenancy) -> None:
    for _ in range(2):
        haunt(tenants)
        assert tenants.rebuild(CountAll).is_success
        assert totals(tenants) == expected(tenants)


def test_tenants_change_while_it_runs(tenants: Tenancy) -> None:
    """One is created, one is suspended, one is purged after its events were processed, and one before."""
    for number in range(3):
        tenants.create(f"more{number}").get(TrainingSchool).register("Fido", "sit", "stay")
    follow(tenants)
    haunt(tenants)
    purged = tenants["acme"], tenants["more2"]
    rebuilds = AcrossRebuilds(tenants.fleet, {"CountAll": new_rebuild()})
    rebuilds.begin()
    for slug in ("acme", "globex", "more0"):
        rebuilds.fill(tenants[slug], Item())
    tenants.purge("acme")
    tenants.purge("more2")
    tenants.suspend("more1")
    tenants.create("new").get(TrainingSchool).register("Bella", "sit")
    tenants.create("acme").get(TrainingSchool).register("Hasso")
    follow(tenants)
    with pytest.raises(Exception, match="purged"):
        rebuilds.fill(purged[0], Item())
    with pytest.raises(Exception, match="purged"):
        rebuilds.fill(purged[1], Item())
    rebuilds.finish(lambda: None)
    tenants.resume("more1")
    assert totals(tenants) == expected(tenants)
    across = tenants.across(CountAll)
    assert across.position(purged[0], "TrainingSchool") == CLOSED
    view = across.view
    assert isinstance(view, Totals)
    for tenant in purged:
        with pytest.raises(PersistenceError):  # a process that read an event before the purge
            view.add(TenantTracking(f"{tenant.id}:TrainingSchool", 99, 12, tenant), dogs=1)


def test_purge_removes_rows_from_the_new_tables(tenants: Tenancy) -> None:
    rebuilds = AcrossRebuilds(tenants.fleet, {"CountAll": new_rebuild()})
    rebuilds.begin()
    purged = tenants["acme"]
    rebuilds.fill(purged, Item())
    shadow = tenants.across(CountAll).open_shadow()
    try:
        view = shadow.view
        assert isinstance(view, Totals)
        assert purged.id in view.all()
        tenants.purge("acme")
        assert view.all() == {}
        with pytest.raises(PersistenceError):
            view.add(shadow.tracking(purged, "TrainingSchool", 99, 1), dogs=1)
    finally:
        shadow.close()


def test_a_tenant_whose_purge_begins_before_its_events_are_processed(
    tenants: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new tables are created after the purge has looked for them."""
    acme = tenants["acme"]
    rebuilds = AcrossRebuilds(tenants.fleet, {"CountAll": new_rebuild()})
    forget = tenants.fleet.cross_tenant.forget

    def forget_and_begin(tenant: Tenant) -> None:
        forget(tenant)
        rebuilds.begin()
        with pytest.raises(ItemSkipped, match="purging"):  # its events are still there
            rebuilds.fill(acme, Item())

    monkeypatch.setattr(tenants.fleet.cross_tenant, "forget", forget_and_begin)
    tenants.purge("acme")
    with pytest.raises(Exception, match="purged"):
        rebuilds.fill(acme, Item())
    rebuilds.finish(lambda: None)
    assert acme.id not in totals(tenants)
    assert tenants.across(CountAll).position(acme, "TrainingSchool") == CLOSED


def test_readers_see_old_rows_or_new_ones(tenants: Tenancy) -> None:
    haunt(tenants)
    schools = {slug: tenants[slug].get(TrainingSchool) for slug in TENANTS}
    seen: list[tuple[bool, int]] = [(True, 0)]

    def read() -> None:
        rows = totals(tenants).values()
        assert len(rows) == len(TENANTS), "fewer rows"
        haunted = {tricks >= GHOSTS for _, tricks in rows}
        assert len(haunted) == 1, "a mixture"
        is_old = haunted.pop()
        counted = sum(dogs + tricks - (GHOSTS if is_old else 0) for dogs, tricks in rows)
        assert is_old <= seen[-1][0], "old rows again"
        assert counted >= seen[-1][1], "an earlier position"
        seen.append((is_old, counted))

    with tenants.runner(workers=2) as runner:

        def write() -> None:
            for slug, school in schools.items():
                school.register("Spot", "sit")
                runner.wait(slug, DEADLINE_SECONDS)  # no faster than a follower can be

        with Loop(write) as writing, Loop(read) as reading:
            reading.wait_for_calls(3)
            writing.wait_for_calls(1)
            assert tenants.rebuild(CountAll).is_success
            wait_until(lambda: not seen[-1][0], "the new rows are seen")
            writing.wait_for_calls(2)
        for slug in TENANTS:
            runner.wait(slug, DEADLINE_SECONDS)
    assert totals(tenants) == expected(tenants)
    assert spaces(tenants) == []


def test_an_event_that_cannot_be_processed_leaves_the_old_view(tenants: Tenancy) -> None:
    haunt(tenants)
    before = totals(tenants)
    tenants["globex"].get(TrainingSchool).register("Rex", "poison")
    report = tenants.rebuild(CountAll, options=JobOptions(error_budget="100%"))
    assert report.job is not None
    assert report.job.status is JobStatus.FAILED
    assert [each.tenant for each in report.failures] == ["globex"]
    assert totals(tenants) == before

    # Fixed code.
    class Lenient(CountAll):
        """Counts any trick."""

        name = "CountAll"

        def process_event(self, domain_event: Any, tracking: Tracking) -> None:
            if isinstance(domain_event, Dog.TrickAdded):
                assert isinstance(tracking, TenantTracking)
                self.view.add(tracking, tricks=1)
            else:
                super().process_event(domain_event, tracking)

    across = tenants.across(CountAll)
    across.projection_class = Lenient
    assert tenants.jobs.resume(report.job.id).is_success
    across.projection_class = CountAll
    assert totals(tenants) == expected(tenants)


def test_a_later_rebuild_takes_over(tenants: Tenancy) -> None:
    first, second = (AcrossRebuilds(tenants.fleet, {"CountAll": new_rebuild()}) for _ in range(2))
    haunt(tenants)
    first.begin()
    first.fill(tenants["acme"], Item())
    second.begin()
    for call in (lambda: first.fill(tenants["globex"], Item()), lambda: first.finish(lambda: None)):
        with pytest.raises(TenancyError, match="later rebuild"):
            call()
    for tenant in tenants:
        second.fill(tenant, Item())
    second.finish(lambda: None)
    second.finish(lambda: None)  # another process, or after it was killed
    assert totals(tenants) == expected(tenants)
    with pytest.raises(TenancyError, match="later rebuild"):
        first.finish(lambda: None)


def test_a_rebuild_that_was_taken_over_writes_nothing(tenants: Tenancy) -> None:
    """A process was paused between two batches, in which another rebuild has created new tables."""
    first, second = (AcrossRebuilds(tenants.fleet, {"CountAll": new_rebuild()}) for _ in range(2))
    first.begin()
    with pytest.raises(TenancyError, match="later rebuild"):
        first.fill(tenants["acme"], Item(on_check=second.begin))
    assert not tenants.across(CountAll).open_shadow().positions("TrainingSchool", [tenants["acme"].id])
    second.finish(lambda: None)
    assert totals(tenants) == expected(tenants)


def test_wrong_arguments(tenants: Tenancy) -> None:
    with pytest.raises(InvalidArgument, match="for some of them"):
        tenants.rebuild(CountAll, tenants=TenantSelection(slugs=["acme"]))
    with pytest.raises(InvalidArgument, match="cannot be kept"):
        tenants.rebuild(CountAll, keep_old=True)
    with pytest.raises(InvalidArgument, match="not kept"):
        tenants.drop_replaced(CountAll)


def test_an_object_that_depends_on_the_view(tenants: Tenancy) -> None:
    view = tenants.across(CountAll).view
    assert isinstance(view, Totals)
    with view.transaction() as session:
        session.execute(sa.text(f"CREATE VIEW report AS SELECT * FROM {view.totals.fullname}"))
    with pytest.raises(TenancyError, match="report"):
        tenants.rebuild(CountAll)
    assert [job.status for job in tenants.jobs.list()] == [JobStatus.CANCELLED]
    with view.transaction() as session:
        session.execute(sa.text("DROP VIEW report"))
    assert tenants.rebuild(CountAll).is_success


class NextTotals(Totals):
    """The next version of the view: another table, and no rows in the one before."""

    version = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.totals = self.own_table(
            "sums", *(sa.Column(each.name, each.type, primary_key=each.primary_key) for each in self.totals.columns)
        )


@pytest.mark.parametrize("has_tenants", [True, False])
def test_migrate_rebuilds_a_view_of_another_version(
    place: tuple[dict[str, str], str | None], *, has_tenants: bool
) -> None:
    with open_fleet(place) as tenants:
        tenants.init()
        if has_tenants:
            for slug in TENANTS:
                tenants.create(slug).get(TrainingSchool).register("Rex", "sit")
            follow(tenants)
        tenants.migrate()
    with open_fleet(place, NextTotals) as tenants:
        report = tenants.migrate()
        assert report.is_success
        assert report.counts.done == (3 if has_tenants else 0)
        assert totals(tenants) == expected(tenants)
        assert tenants.migrate().job is None
        names = sa.inspect(tenants.across(CountAll).view.datastore.engine)
        tables = names.get_table_names(schema=tenants.across(CountAll).schema)
        assert [name for name in tables if name.endswith("_totals")] == []
    with open_fleet(place, NextTotals) as tenants:
        tenants.create("new").get(TrainingSchool).register("Rex")
        follow(tenants)
        assert totals(tenants) == expected(tenants)


def test_migrate_creates_the_tables(place: tuple[dict[str, str], str | None]) -> None:
    env, url = place
    with open_fleet(({**env, "CREATE_TABLE": "no"}, url)) as tenants:
        tenants.init()
        tenants.create("acme").get(TrainingSchool).register("Rex")
        assert [each.position for each in tenants.followers.status()] == [0]
        across = tenants.across(CountAll)
        assert not across.unchecked().has_tables()
        tenants.purge(tenants.create("early"))
        with tenants.runner(workers=1) as runner:
            wait_until(lambda: runner.status()[0].state == "retrying", "the follower lacks its tables")
            assert not across.unchecked().has_tables()
            tenants.migrate()
            wait_until(lambda: runner.status()[0].state == "current", "the follower has its tables")
        assert totals(tenants) == expected(tenants)

"""Quotas refuse events before they are recorded, in every way to record them, and cost nothing without them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from tenancy import Quotas, Tenancy, Tenant
from tenancy.errors import InvalidArgument, QuotaExceeded
from tenancy.metering import ledger
from tenancy.model.tenant import Action
from tenancy.operations.doctor import examine
from tests.samples.kennels import SYSTEM, Dog, Kennel, Reports, Visits
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def fleet(url: str, **arguments: Any) -> Tenancy:
    return Tenancy(applications=[Kennel, Reports], env={"SQLALCHEMY_URL": url}, **arguments)


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    """A fleet of one tenant that may record three events, and one without quotas."""
    with fleet(url) as tenants:
        tenants.create("acme", metadata={"quotas": {"events": 3}})
        tenants.create("globex")
        yield tenants


def write(tenants: Tenancy, slug: str = "acme", events: int = 1) -> None:
    for _ in range(events):
        tenants[slug].get(Kennel).register("Fido")


def test_events(tenants: Tenancy) -> None:
    write(tenants, events=2)
    tenants["acme"].get(Reports).register("Rex")
    with pytest.raises(QuotaExceeded, match="'acme' has recorded 3 of 3 events"):
        write(tenants)
    with pytest.raises(QuotaExceeded):
        tenants["acme"].get(Reports).register("Rex")
    write(tenants, "globex", 10)
    assert tenants["acme"].get(Kennel).names() == ["Fido", "Fido"]  # reads go on
    assert tenants.usage("acme").events == 3


def test_bytes_are_those_of_usage(tenants: Tenancy) -> None:
    write(tenants, "globex")
    size = tenants.usage("globex").bytes
    tenants.update("globex", metadata={"quotas": {"bytes": 2 * size}})
    with fleet(str(tenants.settings.url.render_as_string(hide_password=False))) as other:
        write(other, "globex")
        with pytest.raises(QuotaExceeded, match=rf"recorded {2 * size} of {2 * size} bytes"):
            write(other, "globex")
        assert other.usage("globex").bytes == 2 * size


def test_several_events_are_recorded_together_or_not_at_all(tenants: Tenancy) -> None:
    kennel: Any = tenants["acme"].get(Kennel)
    write(tenants, events=2)
    with pytest.raises(QuotaExceeded, match="recorded 2 of 3 events, and 2 more"):
        kennel.save(Dog("Rex"), Dog("Bella"))
    kennel.save(Dog("Rex"))
    assert kennel.names() == ["Fido", "Fido", "Rex"]


def test_in_transactions_and_sessions(tenants: Tenancy) -> None:
    kennel: Any = tenants["acme"].get(Kennel)
    with kennel.recorder.transaction():
        write(tenants)
    with Session(kennel.recorder.datastore.engine) as session:
        kennel.save(Dog("Rex"), session=session)
        session.commit()
    with pytest.raises(QuotaExceeded), kennel.recorder.transaction():
        write(tenants, events=2)
    assert kennel.names() == ["Fido", "Rex"]


def test_first_event_of_an_object_in_a_given_session(tenants: Tenancy, url: str) -> None:
    write(tenants, events=3)
    with fleet(url) as other:
        kennel: Any = other["acme"].get(Kennel)
        with Session(kennel.recorder.datastore.engine) as session, pytest.raises(QuotaExceeded):
            kennel.save(Dog("Rex"), session=session)


def test_rolled_back_events_are_given_back(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "INTERVAL", 0.01)
    kennel: Any = tenants["acme"].get(Kennel)
    with kennel.recorder.transaction() as session:
        write(tenants, events=3)
        session.rollback()

    def is_admitted() -> bool:
        try:
            write(tenants)
        except QuotaExceeded:
            return False
        return True

    wait_until(is_admitted, "a refresh has found the events missing")
    write(tenants, events=2)
    with pytest.raises(QuotaExceeded):
        write(tenants)


def test_another_process_and_what_was_recorded_before(tenants: Tenancy, url: str, monkeypatch: Any) -> None:
    """A process knows all events from its first one on, and those of others within a second."""
    monkeypatch.setattr(ledger, "INTERVAL", 0.01)
    write(tenants, events=2)
    query = "?application_name=other" if "postgres" in url else "?timeout=30"
    with fleet(f"{url}{query}") as other:
        write(other)
        with pytest.raises(QuotaExceeded, match="recorded 3 of 3"):
            write(other)

        def is_refused() -> bool:
            try:
                with tenants["acme"].get(Kennel).recorder.transaction() as session:  # type: ignore[attr-defined]
                    write(tenants)
                    session.rollback()
            except QuotaExceeded:
                return True
            return False

        wait_until(is_refused, "the first process knows the other one's event")
    assert tenants.usage("acme").events == 3


def test_threads_of_a_process_never_exceed_it(tenants: Tenancy) -> None:
    tenants.update("acme", metadata={"quotas": {"events": 20}})

    def record() -> int:
        done = 0
        for _ in range(10):
            try:
                write(tenants)
            except QuotaExceeded:
                continue
            done += 1
        return done

    with fleet(tenants.settings.url.render_as_string(hide_password=False)) as tenants_of_process:
        tenants = tenants_of_process
        assert sum(run_together([record] * 4)) == 20
        assert tenants.usage("acme").events == 20


def test_change_is_in_force_at_once_here_and_soon_elsewhere(tenants: Tenancy, url: str) -> None:
    write(tenants, events=3)
    with fleet(url) as other:
        with pytest.raises(QuotaExceeded):
            write(other)
        tenants.update("acme", metadata={"quotas": {"events": 4}})
        write(tenants)
        with pytest.raises(QuotaExceeded):
            write(tenants)
        tenants.update("acme", unset=["quotas"])

        def is_admitted() -> bool:
            try:
                write(other)
            except QuotaExceeded:
                return False
            return True

        wait_until(is_admitted, "the other fleet has read the change")
        assert other["acme"].get(Kennel).recorder.datastore.limiter is None  # type: ignore[attr-defined]


def plan(tenant: Tenant) -> Quotas | None:
    """The quotas of a fleet."""
    return Quotas(events=1) if tenant.metadata.get("plan") == "free" else None


def test_function_instead_of_metadata(url: str) -> None:
    with fleet(url, quotas=plan) as planned:
        planned.create("acme", metadata={"quotas": {"events": 3}})
        write(planned, events=5)
        planned.update("acme", metadata={"plan": "free"})
        with pytest.raises(QuotaExceeded, match="recorded 5 of 1"):
            write(planned)
        # A process with the tenant's variables has the same quotas.
        with Kennel(env=planned.env("acme")) as kennel, pytest.raises(QuotaExceeded):
            kennel.register("Fido")
    with pytest.raises(InvalidArgument, match="top level of a module"):
        fleet(url, quotas=lambda _: None)


def test_followers_are_counted_and_not_refused(url: str) -> None:
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.create("acme", metadata={"quotas": {"events": 3}})
        write(tenants, events=2)
        with tenants.runner(workers=1) as runner:
            runner.wait("acme", DEADLINE_SECONDS)
            assert {each.state for each in tenants.followers.status()} == {"current"}
        visits: Any = tenants["acme"].get(Visits)
        assert visits.recorder.max_notification_id() == 2
        with pytest.raises(QuotaExceeded, match="recorded 4 of 3"):
            write(tenants)


def test_events_that_a_policy_saves_itself_are_not_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.create("acme", metadata={"quotas": {"events": 1}})
        write(tenants)
        kennel = tenants["acme"].get(Kennel)
        monkeypatch.setattr(Visits, "policy", lambda *_: kennel.register("saved by the policy"))
        with tenants.runner(workers=1):
            wait_until(lambda: len(kennel.names()) > 1, "the policy has saved")


def test_nothing_is_done_without_quotas(tenants: Tenancy) -> None:
    before = threading.active_count()
    write(tenants, "globex", 3)
    datastore: Any = tenants["globex"].get(Kennel).recorder.datastore  # type: ignore[attr-defined]
    assert datastore.limiter is None
    assert "tenancy-quotas" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() <= before + 2  # those of wake-ups


def test_events_with_quotas_take_no_round_trip(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants.update("acme", metadata={"quotas": {"events": 1000, "bytes": 10**6, "events_per_second": 1000}})
    write(tenants)
    write(tenants, "globex")
    me, calls = threading.get_ident(), []
    run = SQLAlchemyDatastore.run

    def count(self: SQLAlchemyDatastore, *arguments: Any) -> Any:
        if threading.get_ident() == me:
            calls.append(self)
        return run(self, *arguments)

    monkeypatch.setattr(SQLAlchemyDatastore, "run", count)
    for slug in ("acme", "globex"):
        write(tenants, slug, 5)
    datastores = [tenants[slug].get(Kennel).recorder.datastore for slug in ("acme", "globex")]  # type: ignore[attr-defined]
    assert [calls.count(each) for each in datastores] == [5, 5]
    others = [each for each in calls if each not in datastores]
    assert all(each is tenants.fleet.registry.datastore for each in others)  # the refresh of the registry's cache


def test_unusable_quotas_are_refused_or_reported(tenants: Tenancy) -> None:
    with pytest.raises(InvalidArgument, match="quotas"):
        tenants.create("umbra", metadata={"quotas": {"event": 3}})
    with pytest.raises(InvalidArgument, match="quotas"):
        tenants.update("acme", metadata={"quotas": {"events": "many"}})
    registry = tenants.fleet.registry
    with registry.locked("globex") as (session, found):
        registry.change(session, found, Action.RENAME, None, metadata={"quotas": "4711"})
    (finding,) = [each for each in examine(tenants.fleet) if each.name == "limits"]
    assert (finding.level, finding.tenant, "4711" in finding.what) == ("warning", "globex", False)
    write(tenants, "globex")


def test_thread_ends_with_the_fleet(url: str) -> None:
    with fleet(url) as tenants:
        tenants.create("acme", metadata={"quotas": {"events": 3}})
        write(tenants)
        assert "tenancy-quotas" in {thread.name for thread in threading.enumerate()}
    wait_until(
        lambda: "tenancy-quotas" not in {thread.name for thread in threading.enumerate()}, "the thread has ended"
    )

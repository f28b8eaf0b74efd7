"""Reactions get the lifecycle events of each tenant in order and at least once, whatever fails for other tenants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from uuid import uuid4

import pytest

from tenancy import LifecycleEvent, Tenancy, Tenant
from tenancy.errors import InvalidArgument, TenancyError, TenantNotFound
from tenancy.lifecycle.reactions import LEASE_NAME
from tenancy.operations.doctor import examine
from tenancy.registry.process_leases import ProcessLease
from tests.samples.kennels import SYSTEM, Kennel
from tests.support.deadlines import run_together, wait_until

pytestmark = pytest.mark.usefixtures("no_purge_delay", "cold_cache")


class Recorder:
    """A reaction that keeps what it gets, and fails for some slugs."""

    def __init__(self, tenants: Tenancy, *events: str, name: str = "mail") -> None:
        self.failing: set[str | None] = set()
        self.seen: list[LifecycleEvent] = []
        self.attempts = Counter[str]()
        tenants.after(*events, name=name)(self)

    def __call__(self, event: LifecycleEvent) -> None:
        self.attempts[event.key] += 1
        if event.slug in self.failing:
            msg = "the card 4711 of Ms. Miller"
            raise ValueError(msg)
        self.seen.append(event)

    def names(self, slug: str | None = None) -> list[str]:
        """Return the names of the events of a tenant."""
        return [event.name for event in self.seen if slug in (None, event.slug)]


def test_every_event_of_a_tenant_in_order(tenants: Tenancy) -> None:
    mail = Recorder(tenants)
    acme = tenants.create("acme", actor="u-1")
    tenants.suspend("acme", reason="invoice 4711", actor="u-2")
    tenants.resume("acme")
    tenants.rename("acme", "umbra")
    tenants.update("umbra", metadata={"plan": "pro"})
    tenants.archive("umbra")
    tenants.restore("umbra")
    tenants.delete("umbra")
    tenants.undelete("umbra")
    tenants.migrate()
    report = tenants.react()
    assert (report.processed, report.failures, report.owner) == (9, [], None)
    tenants.purge("umbra")
    assert tenants.react().processed == 1
    expected = "activated suspended resumed renamed updated archived restored deleted undeleted purged"
    assert mail.names() == expected.split()
    assert {event.tenant_id for event in mail.seen} == {acme.id}
    assert [event.number for event in mail.seen] == [*range(2, 11), 12]
    assert len({event.key for event in mail.seen}) == 10
    activated, suspended, _, renamed, *_, purged = mail.seen
    assert (activated.slug, activated.actor, activated.status) == ("umbra", "u-1", "active")
    assert (suspended.remark, suspended.actor, suspended.status) == ("invoice 4711", "u-2", "suspended")
    assert renamed.remark == "was acme"
    assert isinstance(renamed.tenant, Tenant)
    assert renamed.tenant.tenancy is tenants
    assert (purged.tenant_id, purged.slug, purged.tenant, purged.remark) == (acme.id, None, None, None)
    assert tenants.react().processed == 0


def test_reaction_uses_the_tenant(tenants: Tenancy) -> None:
    @tenants.after("activated")
    def greet(event: LifecycleEvent) -> None:
        assert event.tenant is not None
        event.tenant.get(Kennel).register("Fido")

    tenants.create("acme")
    tenants.react()
    assert tenants["acme"].get(Kennel).names() == ["Fido"]


def test_failure_delays_the_later_events_of_its_tenant_only(tenants: Tenancy) -> None:
    mail = Recorder(tenants, "activated", "suspended", "resumed")
    dns = Recorder(tenants, name="dns")
    mail.failing = {"acme"}
    tenants.create("acme")
    tenants.create("globex")
    tenants.suspend("acme")
    tenants.suspend("globex")
    report = tenants.react()
    tenants.resume("acme")
    report = tenants.react()
    assert mail.names("globex") == ["activated", "suspended"]
    assert dns.names("acme") == ["activated", "suspended", "resumed"]
    (failure,) = report.failures
    assert (failure.reaction, failure.number, failure.last_number, failure.attempts) == ("mail", 2, 4, 1)
    assert failure.error == "builtins.ValueError"
    assert "4711" not in str(failure)
    assert sum(mail.attempts.values()) == 3, "the next attempt is due later"
    mail.failing = set()
    assert [each.number for each in tenants.reactions.retry("acme", "mail")] == [2]
    assert tenants.react().failures == []
    assert mail.names("acme") == ["activated", "suspended", "resumed"]
    tenants.suspend("acme")
    tenants.react()
    assert mail.names("acme")[-1] == "suspended"


def test_pauses_grow(tenants: Tenancy) -> None:
    mail = Recorder(tenants)
    mail.failing = {"acme"}
    tenants.create("acme")
    tenants.react()
    table = tenants.fleet.registry.rows.reaction_failures
    pauses = []
    for _ in range(14):
        with tenants.fleet.registry.reading() as session:
            row = session.execute(table.select()).one()
        pauses.append(round(row.retry_at - row.last_at.timestamp()))
        tenants.reactions.retry(None)
        tenants.react()
    assert [pauses[0], *pauses[2:5], *pauses[-2:]] == [1, 4, 8, 16, 3600, 3600]


def test_failure_is_retried_when_it_is_due(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.registry.reaction_store._FIRST_DELAY", 0.01)
    mail = Recorder(tenants)
    mail.failing = {"acme"}
    tenants.create("acme")
    tenants.react()
    mail.failing = set()
    wait_until(lambda: tenants.react().processed == 1, "a retry")


def test_skip(tenants: Tenancy) -> None:
    mail = Recorder(tenants)
    mail.failing = {"acme"}
    tenants.create("acme")
    tenants.suspend("acme")
    tenants.react()
    with pytest.raises(TenancyError, match="fails at change 2: change 3"):
        tenants.reactions.skip("acme", "mail", 3)
    assert tenants.reactions.skip("acme", "mail", 2, actor="ops-7").number == 2
    mail.failing = set()
    tenants.react()
    assert mail.names() == ["suspended"]
    (skipped,) = [change for change in tenants.history("acme") if change.action == "skip"]
    assert (skipped.actor, skipped.remark) == ("ops-7", "mail: change 2")
    for wrong, message in (("mail", "is not failing"), ("billing", "is not part of this fleet. Pass one of: mail")):
        with pytest.raises(TenancyError, match=message):
            tenants.reactions.skip("acme", wrong, 2)


def test_skip_of_the_only_change_that_waits(tenants: Tenancy) -> None:
    Recorder(tenants).failing = {"acme"}
    tenants.create("acme")
    tenants.react()
    tenants.reactions.skip("acme", "mail", 2)
    assert tenants.reactions.status()[0].failures == []


def test_purged_tenant_keeps_its_reactions(tenants: Tenancy) -> None:
    mail = Recorder(tenants)
    mail.failing = {"acme", None}
    acme = tenants.create("acme")
    tenants.react()
    assert set(tenants.purge("acme").left.values()) == {0}
    (failure,) = tenants.react().failures
    assert failure.last_number == 4
    mail.failing = set()
    with pytest.raises(TenantNotFound):
        tenants.reactions.retry("acme")
    tenants.reactions.retry(acme.id)
    tenants.react()
    assert [(event.name, event.slug) for event in mail.seen] == [("activated", None), ("purged", None)]
    mail.failing = {None}
    tenants.purge(tenants.create("umbra"))
    (failure,) = tenants.react().failures
    while tenants.reactions.status()[0].failures:
        (failure,) = tenants.reactions.status()[0].failures
        tenants.reactions.skip(failure.tenant_id, "mail", failure.number)
        tenants.react()


def test_new_reaction_gets_the_changes_that_follow(make: Callable[[], Tenancy]) -> None:
    tenants, other, third = make(), make(), make()
    tenants.create("acme")
    mail = Recorder(other)
    other.create("globex")  # records it
    tenants.suspend("acme")
    other.react()
    assert [(event.name, event.slug) for event in mail.seen] == [("activated", "globex"), ("suspended", "acme")]
    late = Recorder(third, name="late")
    third.init()
    tenants.resume("acme")
    third.react()
    assert late.names() == ["resumed"]
    other.react()
    assert mail.names() == ["activated", "suspended", "resumed"]


def test_reactions_to_events_that_reactions_cause(tenants: Tenancy) -> None:
    mail = Recorder(tenants, "suspended")

    @tenants.after("activated")
    def suspend(event: LifecycleEvent) -> None:
        assert event.tenant is not None
        tenants.suspend(event.tenant)

    tenants.create("acme")
    assert tenants.react().processed == 2
    assert mail.names() == ["suspended"]


def test_one_process_reacts_at_a_time(make: Callable[[], Tenancy]) -> None:
    fleets = [make() for _ in range(3)]
    fleets[0].init()
    recorders = [Recorder(fleet) for fleet in fleets]
    for fleet in fleets:
        fleet.init()
    for _ in fleets[0].create_many([f"t{number}" for number in range(20)]):
        pass
    reports = run_together([fleet.react for fleet in fleets])
    assert sum(report.processed for report in reports) == 20
    assert sorted(event.slug or "" for each in recorders for event in each.seen) == sorted(fleets[0].slugs())
    lease = ProcessLease(fleets[0].fleet.registry, LEASE_NAME, 60.0)
    assert lease.acquire()
    report = fleets[1].react()
    assert (report.processed, report.owner) == (0, lease.owner)
    assert fleets[1].reactions.status()[0].owner == lease.owner
    lease.release()
    assert fleets[1].react().owner is None


def test_expired_lease_is_taken_over(tenants: Tenancy) -> None:
    Recorder(tenants)
    tenants.create("acme")
    assert ProcessLease(tenants.fleet.registry, LEASE_NAME, 0.05).acquire()
    wait_until(lambda: tenants.react().processed == 1, "the lease has expired")


def test_runner_reacts_without_pipes(make: Callable[[], Tenancy]) -> None:
    tenants, other = make(), make()
    mail = Recorder(tenants)
    tenants.init()
    with tenants.runner(workers=1) as runner:
        assert "reactions" in runner.health()
        other.create("acme")
        wait_until(lambda: mail.names() == ["activated"], "a reaction")
        other.suspend("acme")
        wait_until(lambda: mail.names() == ["activated", "suspended"], "a reaction")
        assert runner.health()["reactions"] is None
        assert (tenants.reactions.status()[0].owner or "").partition("-")[0] == runner.owner.partition("-")[0]
    assert tenants.reactions.status()[0].owner is None


def test_runner_has_something_to_do(url: str) -> None:
    with (
        Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants,
        pytest.raises(TenancyError, match=r"register reactions: @tenants\.after"),
    ):
        tenants.runner()


def test_two_runners_with_a_slow_reaction(make: Callable[[], Tenancy], url: str) -> None:
    """Each event is processed once, although a reaction takes longer than the lease."""
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as first, make() as second:
        calls = Counter[str]()
        for fleet in (first, second):

            @fleet.after("activated", name="mail")
            def wait_for_renewals(event: LifecycleEvent, fleet: Tenancy = fleet) -> None:
                calls[event.key] += 1
                lease = fleet.fleet.registry.rows.process_leases
                seen: set[float] = set()

                def is_renewed() -> bool:
                    with fleet.fleet.registry.reading() as session:
                        seen.update(session.scalars(lease.select().with_only_columns(lease.c.expires)))
                    return len(seen) > 6

                wait_until(is_renewed, "the lease is renewed for longer than it lasts")

        first.init()
        with first.runner(lease_seconds=1.0), second.runner(lease_seconds=1.0):
            first.create("acme")
            wait_until(lambda: first.reactions.status()[0].lag == 0, "the reactions")
    assert list(calls.values()) == [1]


def test_doctor_lists_reactions(tenants: Tenancy, url: str) -> None:
    mail = Recorder(tenants, "suspended", "activated")
    tenants.create("acme")
    tenants.create("globex")

    def findings(fleet: Tenancy) -> list[tuple[str, str]]:
        return [(each.level, each.what) for each in examine(fleet.fleet) if each.name == "reactions"]

    assert findings(tenants)[0][1].startswith("mail reacts to activated, suspended. ")
    mail.failing = {"acme"}
    tenants.react()
    assert findings(tenants) == [("warning", "mail fails at change 2 of 'acme' (builtins.ValueError), attempt 1.")]
    mail.failing = {None}
    tenants.purge("acme")
    tenants.reactions.retry(None)
    tenants.react()
    assert "of the purged tenant" in findings(tenants)[0][1]
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as other:
        assert "mail is recorded and not in the code" in findings(other)[0][1]


def test_misuse_is_refused(tenants: Tenancy) -> None:
    with pytest.raises(InvalidArgument, match=r"no lifecycle event 'created'\. Pass some of: activated, archived"):
        Recorder(tenants, "created")

    def mail(_: LifecycleEvent) -> None: ...

    with pytest.raises(InvalidArgument, match=r"@tenants\.after\(\"suspended\"\)"):
        tenants.after(mail)(mail)  # type: ignore[arg-type]
    tenants.after()(mail)
    with pytest.raises(InvalidArgument, match="Two functions have the name 'mail'"):
        tenants.after("suspended")(mail)
    tenants.init()
    with pytest.raises(TenantNotFound):
        tenants.reactions.retry("acme")
    with pytest.raises(TenancyError, match="is not failing"):
        tenants.reactions.skip(uuid4(), "mail", 1)

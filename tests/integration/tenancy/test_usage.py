"""Usage counts every event once: in one process, in several, and after a kill."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from tenancy import Tenancy, Usage
from tenancy.errors import InvalidArgument, TenantNotFound
from tenancy.metering import rollup
from tenancy.model.usage import Count
from tenancy.operations.jobs import TenantSelection
from tenancy.registry.usage import CountStore
from tenancy.runner import usage as runner_usage
from tests.samples.kennels import SYSTEM, Kennel, Reports, Visits
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.usage_process import UsageProcess

DIFFICULT = 'Ünï-cödé "x"'


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    """A fleet of two tenants, each with two applications."""
    with fleet(url) as tenants:
        list(tenants.create_many(["acme", DIFFICULT]))
        yield tenants


def fleet(url: str, **variables: str) -> Tenancy:
    return Tenancy(applications=[Kennel, Reports], env={"SQLALCHEMY_URL": url, **variables})


def numbers(usage: Usage) -> tuple[int, int]:
    return usage.events, usage.bytes


def stored(tenants: Tenancy, slug: str) -> tuple[int, int]:
    """Return the number of events in a tenant's tables, and the size of their states."""
    events = size = 0
    for cls in (Kennel, Reports):
        recorder: Any = tenants[slug].get(cls).recorder
        with recorder.transaction(commit=False) as session:
            for (state,) in session.execute(sa.select(recorder.events_table.c.state)):
                events, size = events + 1, size + len(state)
    return events, size


def statements(tenants: Tenancy, call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how often the tenants' tables are queried during a call."""
    found = []
    run = SQLAlchemyDatastore.run

    def count(self: SQLAlchemyDatastore, *arguments: Any) -> Any:
        found.append(self)
        return run(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SQLAlchemyDatastore, "run", count)
        call()
    return found.count(tenants.fleet.shard.datastore)


def test_usage_is_of_all_applications_of_one_tenant(tenants: Tenancy) -> None:
    assert tenants.usage("acme") == Usage(
        tenant="acme",
        tenant_id=tenants["acme"].id,
        events=0,
        bytes=0,
        first_active_at=None,
        last_active_at=None,
        rate=None,
    )
    before = datetime.now(UTC)
    for number in range(3):
        tenants["acme"].get(Kennel).register(f"Fido {number}")
        tenants["acme"].get(Reports).register("ü" * 1000)
    tenants[DIFFICULT].get(Kennel).register("Rex")
    usage = tenants.usage("acme")
    assert numbers(usage) == stored(tenants, "acme")
    assert usage.events == 6
    assert usage.bytes > 3000
    assert usage.first_active_at is not None
    assert before <= usage.first_active_at == usage.last_active_at
    assert [numbers(each) for each in tenants.usages()] == [(6, usage.bytes), stored(tenants, DIFFICULT)]
    assert tenants.usage(DIFFICULT).events == 1


def test_times_and_rate(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    now = began

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now.astimezone(tz)

    monkeypatch.setattr(rollup, "datetime", Clock)
    monkeypatch.setattr("tenancy.storage.usage.datetime", Clock)
    kennel = tenants["acme"].get(Kennel)

    def after(seconds: int, events: int) -> Usage:
        nonlocal now
        now += timedelta(seconds=seconds)
        for _ in range(events):
            kennel.register("Fido")
        return tenants.usage("acme")

    assert after(0, 100).rate is None
    first = after(60, 30)
    assert (first.first_active_at, first.last_active_at, first.rate) == (began, now, 30 / 60)
    active = after(60, 60)
    assert (active.first_active_at, active.last_active_at, active.rate) == (began, now, 60 / 60)
    assert after(10, 10).rate == 70 / 70  # the window goes on for a minute
    last = now
    idle = after(3600, 0)
    assert (idle.last_active_at, idle.rate) == (last, 70 / 3670)
    assert idle.events == 200


def test_events_are_counted_once_and_only_new_ones_are_read(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    kennel = tenants["acme"].get(Kennel)
    for number in range(1, 4):
        kennel.register("Fido")
        assert tenants.usage("acme").events == number
    recorder: Any = kennel.recorder
    with recorder.transaction() as session:
        session.execute(sa.delete(recorder.events_table).where(recorder.events_table.c.id < 3))
    kennel.register("Rex")
    assert tenants.usage("acme").events == 4  # deleted ones were recorded, too
    with fleet(str(tenants.settings.url.render_as_string(hide_password=False))) as other:
        assert other.usage("acme").events == 4
    assert [each.events for each in tenants.fleet.usage.recorded([tenants["acme"]])] == [4]
    assert statements(tenants, tenants.usages, monkeypatch) <= 3


def test_queries_do_not_grow_with_the_fleet(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    list(tenants.create_many([f"t{number}" for number in range(40)]))
    for tenant in tenants:
        tenant.get(Kennel).register("Fido")
    assert statements(tenants, tenants.usages, monkeypatch) <= 4
    assert statements(tenants, tenants.usages, monkeypatch) <= 4
    assert sum(each.events for each in tenants.usages()) == 42


def test_gaps_and_open_transactions(tenants: Tenancy) -> None:
    kennel = tenants["acme"].get(Kennel)
    recorder: Any = kennel.recorder
    with recorder.transaction() as session:
        kennel.register("Fido")
        session.rollback()
    assert tenants.usage("acme").events == 0
    kennel.register("Fido")
    if recorder.datastore.dialect.is_server:
        with recorder.transaction():
            kennel.register("Rex")
            (usage,) = run_together([lambda: tenants.usage("acme")])
            assert usage.events == 1
    else:
        with recorder.transaction():
            kennel.register("Rex")
    assert tenants.usage("acme").events == 2


def test_restored_tables_are_counted_from_the_start(tenants: Tenancy) -> None:
    """A backup from before: the ids start again behind those that were counted."""
    kennel = tenants["acme"].get(Kennel)
    for _ in range(5):
        kennel.register("Fido")
    first = tenants.usage("acme")
    recorder: Any = kennel.recorder
    table = recorder.datastore.dialect.render(recorder.tables[0].name, parameters=False)
    with recorder.transaction() as session:
        if recorder.datastore.dialect.is_server:
            session.execute(sa.text(f"TRUNCATE {table} RESTART IDENTITY"))
        else:
            session.execute(sa.text(f"DELETE FROM {table}"))
            session.execute(sa.text("UPDATE sqlite_sequence SET seq = 0"))
    with fleet(tenants.settings.url.render_as_string(hide_password=False)) as restored:
        restored["acme"].get(Kennel).register("Rex")
        usage = restored.usage("acme")
        assert (usage.events, usage.first_active_at) == (1, first.first_active_at)
        restored["acme"].get(Kennel).register("Rex")
        assert restored.usage("acme").events == 2


def test_rollups_at_once_count_once(url: str) -> None:
    """Many threads of many fleets, while events are recorded."""
    with fleet(url) as tenants:
        tenants.create("acme")
        kennel = tenants["acme"].get(Kennel)
        kennel.register("Fido")  # before the others open the same file
        others = [fleet(url) for _ in range(3)]
        done = threading.Event()

        def write() -> list[int]:
            for _ in range(100):
                kennel.register("Fido")
            done.set()
            return []

        def measure(other: Tenancy) -> list[int]:
            found = []
            while not done.is_set():
                found.append(other.usage("acme").events)
            return found

        for found in run_together([write, *(lambda other=other: measure(other) for other in others)]):
            assert found == sorted(found)
        for each in (tenants, *others):
            assert each.usage("acme").events == 101
        assert [each.events for each in tenants.fleet.usage.recorded([tenants["acme"]])] == [101]
        for each in others:
            each.close()


def test_killed_process_leaves_no_count_behind(url: str) -> None:
    """Whatever it was doing: counting, storing, or between both."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.create("acme")
        kennel = tenants["acme"].get(Kennel)
        written = 0
        for _ in range(2):
            with UsageProcess(url) as one, UsageProcess(url) as two:
                one.wait_for_rollups(1)
                two.wait_for_rollups(1)
                for _ in range(30):
                    kennel.register("Fido")
                    written += 1
                one.kill()
                kennel.register("Fido")
                written += 1
                two.wait_for_rollups(1)
        assert tenants.usage("acme").events == written
        assert numbers(tenants.usage("acme"))[1] == sum(
            len(each.state) for each in kennel.recorder.select_notifications(start=None, limit=1000)
        )


def test_rollup_that_fails_while_storing_is_repeated(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants["acme"].get(Kennel).register("Fido")
    read = CountStore._advance  # noqa: SLF001 (to fail inside its transaction)

    def fail(self: CountStore, advances: Any) -> Any:
        with self._registry.writing_rows():
            read(self, advances)
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(CountStore, "_advance", fail)
        with pytest.raises(MemoryError):
            tenants.usage("acme")
    tenants["acme"].get(Kennel).register("Rex")
    assert tenants.usage("acme").events == 2


def test_stale_count_is_not_stored(tenants: Tenancy) -> None:
    """That of a process which was paused while others went on."""
    kennel, store = tenants["acme"].get(Kennel), CountStore(tenants.fleet.registry)
    key = (tenants["acme"].id, "Kennel")
    for _ in range(2):
        kennel.register("Fido")
        tenants.usage("acme")
    count = store.read([key[0]])[key]
    for stale in (None, count.position - 1):
        assert store.advance({key: (stale, replace(count, events=99))}) == set()
    assert store.read([key[0]]) == {key: count}
    assert store.advance({key: (count.position, replace(count, events=99))}) == {key}
    assert store.read([key[0]])[key].events == 99


def test_locked_tenant_is_counted_and_not_waited_for(postgres_url: str) -> None:
    with fleet(postgres_url) as tenants:
        tenants.create("acme")
        tenants["acme"].get(Kennel).register("Fido")
        with tenants.fleet.registry.locked("acme"):
            (usage,) = run_together([lambda: tenants.usage("acme")])
            assert usage.events == 1
            assert tenants.fleet.usage.recorded([tenants["acme"]])[0].events == 0
        assert tenants.usage("acme").events == 1


def test_purge_erases_the_counts(tenants: Tenancy) -> None:
    acme = tenants["acme"]
    acme.get(Kennel).register("Fido")
    tenants.usage("acme")
    assert tenants.fleet.registry.remaining_rows(acme.id) == 2
    certificate = tenants.purge("acme")
    assert certificate.left["registry rows"] == 0
    # A rollup that had read the tables before stores nothing.
    count = CountStore(tenants.fleet.registry)
    now = datetime.now(UTC)
    late = Count(position=1, events=1, bytes=1, first_at=now, last_at=now, window_at=now, window_events=1)
    assert count.advance({(acme.id, "Kennel"): (None, late)}) == set()
    assert tenants.fleet.registry.remaining_rows(acme.id) == 0
    tenants.create("acme")
    assert tenants.usage("acme").events == 0


def test_selection(tenants: Tenancy) -> None:
    tenants.create("umbra", metadata={"plan": "free"})
    tenants.suspend("umbra")
    assert [each.tenant for each in tenants.usages(TenantSelection(where={"plan": "free"}))] == ["umbra"]
    assert len(tenants.usages(TenantSelection(limit=2))) == 2
    with pytest.raises(TenantNotFound):
        tenants.usages(TenantSelection(slugs=["nowhere"]))
    with pytest.raises(TenantNotFound):
        tenants.usage("nowhere")
    with pytest.raises(InvalidArgument):
        tenants.usages("acme")  # type: ignore[arg-type]


def test_missing_tables_count_as_before(tenants: Tenancy) -> None:
    kennel = tenants["acme"].get(Kennel)
    kennel.register("Fido")
    tenants.usage("acme")
    recorder: Any = kennel.recorder
    with recorder.transaction() as session:
        session.execute(sa.schema.DropTable(recorder.events_table))
    assert [each.events for each in tenants.usages()] == [1, 0]


def test_runner_rolls_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_usage, "INTERVAL", 0.05)
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as tenants:
        acme = tenants.create("acme")
        with tenants.runner(workers=1) as runner:
            acme.get(Kennel).register("Fido")
            runner.wait("acme", DEADLINE_SECONDS)

            def events() -> int:
                return tenants.fleet.usage.recorded([acme])[0].events

            # The follower's event is its tenant's, too.
            wait_until(lambda: events() == 2, "the runner has counted both")
            assert runner.health()["usage"] is None
        assert isinstance(acme.get(Visits).recorder.max_notification_id(), int)
        assert isinstance(acme.id, UUID)

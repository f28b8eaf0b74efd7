"""A purge waits for processes that may still write to the tenant, and only for these."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.errors import TenantPurged, TenantUnavailable
from tenancy.registry import offline
from tenancy.storage.remover import Remover
from tests.samples.kennels import Kennel
from tests.support.deadlines import run_together

# Longer than any test takes.
DELAY = 1000.0


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait; nothing really waits."""
    found: list[float] = []
    monkeypatch.setattr("tenancy.lifecycle.purging.DELAY", DELAY)
    monkeypatch.setattr("tenancy.lifecycle.purging.time", SimpleNamespace(sleep=found.append))
    return found


def shift(tenants: Tenancy, seconds: float) -> None:
    """Move the record of all tenants into the past."""
    rows = tenants.fleet.registry.rows.offline
    with tenants.fleet.registry.writing_rows() as session:
        session.execute(sa.update(rows).values(since=rows.c.since - seconds))


@pytest.mark.parametrize("verb", ["delete", "archive"])
def test_only_the_rest_is_waited_for(verb: str, tenants: Tenancy, delays: list[float]) -> None:
    for slug in ("acme", "globex"):
        tenants.create(slug)
        getattr(tenants, verb)(slug)
    tenants.purge("acme")
    assert 0 < delays.pop() < DELAY
    shift(tenants, DELAY)
    tenants.purge("globex")
    assert delays == []


def test_a_tenant_that_may_be_in_use_is_waited_for(tenants: Tenancy, delays: list[float]) -> None:
    tenants.create("active")
    tenants.create("suspended")
    tenants.suspend("suspended")
    tenants.create("restored")
    tenants.archive("restored")
    tenants.restore("restored")
    shift(tenants, 3600)
    for slug in ("active", "suspended", "restored"):
        tenants.purge(slug)
    assert delays == [DELAY] * 3


def test_of_several_tenants_the_last_one_counts(tenants: Tenancy, delays: list[float]) -> None:
    for slug in ("acme", "globex", "initech"):
        tenants.create(slug)
    tenants.delete("acme")
    tenants.archive("globex")
    shift(tenants, 3600)
    list(tenants.purge_many(["acme", "globex", "initech"]))
    assert delays == [DELAY]


def test_a_record_of_an_earlier_change_does_not_count(tenants: Tenancy, delays: list[float]) -> None:
    """A process of an earlier version has changed the status, without a record."""
    tenants.create("acme")
    tenants.delete("acme")
    shift(tenants, 3600)
    rows = tenants.fleet.registry.rows.tenants
    with tenants.fleet.registry.writing_rows() as session:
        session.execute(sa.update(rows).values(changed_at=tenants["acme"].changed_at + timedelta(seconds=5)))
    tenants.purge("acme")
    assert delays == [DELAY]


def test_the_record_is_taken_after_the_commit(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that commits late would make the tenant look offline before others could see it."""
    seen: list[str] = []
    tenants.create("acme")

    def look(registry: Any, tenant: Any) -> None:
        # Another thread is in another transaction.
        seen.extend(run_together([lambda: registry.get(tenant.id).status]))

    monkeypatch.setattr("tenancy.lifecycle.transitions.record_offline", look)
    tenants.delete("acme")
    assert seen == ["deleted"], "in another transaction"


def test_a_failing_record_fails_no_change(
    tenants: Tenancy, delays: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants.create("acme")
    with monkeypatch.context() as patch:
        patch.setattr(offline, "_now", lambda _: sa.literal_column("no_such_column"))
        assert tenants.delete("acme").status == "deleted"
    tenants.purge("acme")
    assert delays == [DELAY]


def test_the_purge_leaves_no_record(tenants: Tenancy, delays: list[float]) -> None:
    tenants.create("acme")
    tenants.delete("acme")
    tenants.purge("acme")
    with tenants.fleet.registry.reading() as session:
        assert session.execute(sa.select(tenants.fleet.registry.rows.offline)).all() == []
    assert len(delays) == 1


def test_another_process_refuses_the_tenant_before_its_tables_are_dropped(
    tenants: Tenancy, elsewhere: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked when the purge has waited, before the first table is dropped."""
    tenants.create("acme")
    kennel = elsewhere["acme"].get(Kennel)
    kennel.register("Fido")
    refused: list[type[Exception]] = []
    drop = Remover.drop

    def ask_first(*arguments: Any) -> Any:
        with pytest.raises(TenantUnavailable) as caught:
            kennel.register("Rex")
        refused.append(caught.type)
        return drop(*arguments)

    monkeypatch.setattr(Remover, "drop", ask_first)
    tenants.delete("acme")
    tenants.purge("acme")
    assert refused == [TenantPurged]

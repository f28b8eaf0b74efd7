"""State transitions of existing tenants: what each keeps, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.persistence import Notification
from sqlalchemy import select, text

from tenancy import Tenancy
from tenancy.errors import (
    TenancyError,
    TenantArchived,
    TenantDeleted,
    TenantExists,
    TenantNotFound,
    TenantPurged,
    TenantSuspended,
    TransitionRefused,
)
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel
from tests.support import catalog
from tests.support.deadlines import run_together

pytestmark = pytest.mark.usefixtures("no_purge_delay")


@pytest.fixture
def kennel(tenants: Tenancy) -> Kennel:
    """An application of the tenant acme, with one dog."""
    application = tenants.create("acme").get(Kennel)
    application.register("Fido")
    return application


def test_rename_keeps_the_tenant_and_its_tables(tenants: Tenancy, kennel: Kennel) -> None:
    before = tenants["acme"]
    renamed = tenants.rename("acme", "Globex", name="Globex Inc", actor="ops-1")
    assert (renamed.slug, renamed.name) == ("globex", "Globex Inc")
    assert (renamed.id, renamed.placement, renamed.status) == (before.id, before.placement, before.status)
    assert tenants["globex"] == renamed
    assert "acme" not in tenants
    kennel.register("Rex")
    assert renamed.get(Kennel) is kennel
    assert kennel.names() == ["Fido", "Rex"]
    with pytest.raises(TenantNotFound):
        tenants.rename("acme", "other")
    assert tenants.rename("globex", "globex") == renamed
    assert len(tenants.history("globex")) == 3


def test_reused_slug_inherits_nothing(tenants: Tenancy, kennel: Kennel) -> None:
    old = tenants["acme"]
    tenants.rename("acme", "globex")
    new = tenants.create("acme")
    assert new.id != old.id
    assert new.placement != old.placement
    assert new.get(Kennel).names() == []
    tenants.purge("acme")
    third = tenants.create("acme")
    assert third.placement not in (old.placement, new.placement)
    assert third.get(Kennel).names() == []
    assert kennel.names() == ["Fido"]


def test_rename_to_a_taken_slug(tenants: Tenancy, kennel: Kennel) -> None:
    tenants.create("globex")
    with pytest.raises(TenantExists, match="'globex' already exists"):
        tenants.rename("acme", "GLOBEX")
    assert tenants["acme"].get(Kennel) is kennel


def test_two_tenants_exchange_their_slugs(tenants: Tenancy, repeat: Callable[[int], range]) -> None:
    tenants.create("acme")
    tenants.create("globex")

    def rename(slug: str, new_slug: str) -> None:
        with pytest.raises(TenantExists):
            tenants.rename(slug, new_slug)

    for _ in repeat(3):
        run_together([lambda: rename("acme", "globex"), lambda: rename("globex", "acme")] * 4)
    assert set(tenants.slugs()) == {"acme", "globex"}


def test_suspended(tenants: Tenancy, kennel: Kennel) -> None:
    tenants.suspend("acme", reason="invoice 4711", actor="ops-1")
    for call in (lambda: kennel.register("Rex"), kennel.names, lambda: tenants["acme"].get(Kennel)):
        with pytest.raises(TenantSuspended, match="invoice 4711"):
            call()
    with pytest.raises(TenantSuspended), tenants.scope("acme"):
        pass
    # Repeating it changes nothing, and another kind of suspension is a change.
    tenants.suspend("acme")
    tenants.suspend("acme", reason="invoice 4711", reads=False)
    assert len(tenants.history("acme")) == 3
    tenants.suspend("acme", reads=True)
    assert kennel.names() == ["Fido"]
    assert tenants["acme"].get(Kennel) is kennel
    with pytest.raises(TenantSuspended):
        kennel.register("Rex")
    with pytest.raises(TenantSuspended), kennel.recorder.transaction():  # type: ignore[attr-defined]
        pass
    with kennel.recorder.transaction(commit=False):  # type: ignore[attr-defined]
        assert kennel.names() == ["Fido"]
    resumed = tenants.resume("acme")
    assert (resumed.status, resumed.reason) == ("active", None)
    kennel.register("Rex")
    tenants.suspend("acme")
    with pytest.raises(TenantSuspended):
        kennel.names()


def test_omitted_values_stay_unchanged(tenants: Tenancy) -> None:
    suspended = tenants.create("acme") and tenants.suspend("acme", reason="invoice 4711", reads=True)
    assert tenants.suspend("acme") == suspended
    assert tenants.suspend("acme", reason="invoice 4712") == replace(suspended, reason="invoice 4712")
    assert tenants.suspend("acme", reads=False) == replace(suspended, reason="invoice 4712", reads=False)
    archived = tenants.archive("acme", reason="A")
    assert tenants.archive("acme", reason="B") == replace(archived, reason="B") == tenants.archive("acme")
    deleted = tenants.delete("acme", reason="C")
    assert tenants.delete("acme", reason="D") == replace(deleted, reason="D") == tenants["acme"]
    assert [(change.action, change.remark) for change in tenants.history("acme")[2:]] == [
        ("suspend", "invoice 4711"),
        ("suspend", "invoice 4712"),
        ("suspend", None),
        ("archive", "A"),
        ("archive", "B"),
        ("delete", "C"),
        ("delete", "D"),
    ]
    tenants.undelete("acme")
    tenants.restore("acme")
    tenants.resume("acme")
    again = tenants.suspend("acme")
    assert (again.reason, again.reads) == (None, False)


def test_ladder(tenants: Tenancy, kennel: Kennel) -> None:
    tenants.suspend("acme", reads=True)
    tenants.archive("acme", reason="left")
    with pytest.raises(TenantArchived, match="left"):
        kennel.names()
    deleted = tenants.delete("acme")
    assert deleted.due_at is not None
    with pytest.raises(TenantDeleted, match="Undelete it: tenancy undelete acme"):
        kennel.names()
    with pytest.raises(TransitionRefused, match="Undelete it first"):
        tenants.resume("acme")
    assert tenants.undelete("acme").status == "archived"
    assert tenants.undelete("acme").status == "archived"
    restored = tenants.restore("acme")
    assert (restored.status, restored.reads, restored.due_at, restored.previous) == ("suspended", True, None, ())
    assert tenants.resume("acme").status == "active"
    assert kennel.names() == ["Fido"]
    assert [change.action for change in tenants.history("acme")] == [
        *("create", "activate", "suspend", "archive", "delete", "undelete", "restore", "resume")
    ]
    assert [change.version for change in tenants.history("acme")] == list(range(1, 9))


def test_grace_period(fleet: MakeFleet) -> None:
    tenants = fleet(TENANCY_GRACE_DAYS=2.5)
    tenants.create("acme")
    before = datetime.now(UTC)
    due_at = tenants.delete("acme").due_at
    assert due_at is not None
    assert before + timedelta(days=2.5) <= due_at <= datetime.now(UTC) + timedelta(days=2.5)
    assert tenants.delete("acme").due_at == due_at
    assert tenants.due() == []
    hasty = fleet(TENANCY_GRACE_DAYS=0)
    hasty.create("globex")
    hasty.delete("globex")
    assert [tenant.slug for tenant in tenants.due()] == ["globex"]
    assert tenants.undelete("globex").due_at is None
    assert tenants.due() == []


def test_list_by_status(tenants: Tenancy) -> None:
    list(tenants.create_many(["c", "a", "b"]))
    tenants.suspend("b")
    assert [tenant.slug for tenant in tenants.list("active")] == ["a", "c"]
    assert [tenant.slug for tenant in tenants.list("suspended")] == ["b"]
    with pytest.raises(ValueError, match="nothing"):
        tenants.list("nothing")


def test_history_contains_no_names(tenants: Tenancy, url: str) -> None:
    tenants.create("canary-slug", name="canary-name", metadata={"x": "canary-data"}, request_id="canary-request")
    tenants.suspend("canary-slug", reason="canary-reason", actor="id-7")
    tenants.rename("canary-slug", "canary-slug-2", name="canary-name-2")
    assert tenants.history("canary-slug-2")[2].remark == "canary-reason"
    recorder: Any = tenants.fleet.registry._recorder  # noqa: SLF001 (not public)
    events: list[Notification] = recorder.select_notifications(start=None, limit=100)
    assert b"id-7" in b"".join(event.state for event in events)
    assert b"canary" not in b"".join(event.state for event in events)
    tenant_id = tenants["canary-slug-2"].id
    tenants.purge("canary-slug-2", actor="id-8")
    with recorder.transaction(commit=False) as session:
        for name in sorted(catalog.objects(url)):
            if "tenancy" in name and ("tenants" in name or "remarks" in name or "tombstones" in name):
                if "idx" in name or "key" in name or "autoindex" in name:
                    continue
                rows = session.execute(text(f"SELECT * FROM {name}")).all()
                assert "canary" not in repr(rows)
                assert bool(rows) == ("tombstones" in name)
    history = tenants.history(str(tenant_id))
    assert (history[-1].action, history[-1].status, history[-1].actor) == ("purge", "purged", "id-8")
    assert not any(change.remark for change in history)


@pytest.mark.parametrize("actor", ["Ann Example", "ann@example.com", "", "a\0b", "x" * 101, 7])
def test_actor_that_may_be_a_name_is_refused_before_any_change(tenants: Tenancy, actor: Any) -> None:
    """The history, which would contain it, is never erased."""
    tenants.create("acme", actor="id-7")
    for do in (
        lambda: tenants.create("globex", actor=actor),
        lambda: tenants.rename("acme", "other", actor=actor),
        lambda: tenants.suspend("acme", actor=actor),
        lambda: tenants.delete("acme", actor=actor),
        lambda: list(tenants.purge_many(["acme"], actor=actor)),
        lambda: tenants.followers.skip("acme", "Shop", 1, actor=actor),
    ):
        with pytest.raises(TenancyError, match="Invalid actor"):
            do()
    assert [tenant.status for tenant in tenants.list()] == ["active"]
    assert {change.actor for change in tenants.history("acme")} == {"id-7"}


def test_tombstone_is_found_with_the_key(tenants: Tenancy) -> None:
    registry = tenants.fleet.registry
    acme = tenants.create("acme")
    certificate = tenants.purge("acme")
    with registry.reading() as session:
        (tombstone,) = session.execute(select(registry.rows.tombstones)).all()
    assert (tombstone.id, tombstone.purged_at) == (acme.id, certificate.purged_at)
    assert tombstone.slug_hash == registry.hash("acme")
    assert certificate.slug_hash == registry.hash("acme") != registry.hash("globex")


@pytest.mark.parametrize("verb", ["suspend", "resume", "archive", "restore", "delete", "undelete", "purge", "rename"])
@pytest.mark.parametrize("slug", ["unknown", "a/b", ""])
def test_verb_on_an_unknown_tenant(tenants: Tenancy, verb: str, slug: str) -> None:
    tenants.init()
    with pytest.raises(TenantNotFound):
        getattr(tenants, verb)(slug)


def test_current_tenant(tenants: Tenancy, kennel: Kennel) -> None:
    globex = tenants.create("globex")
    with tenants.scope("acme"):
        assert tenants.application(Kennel) is kennel
        assert tenants.current.slug == "acme"
        tenants.suspend("acme")
        with pytest.raises(TenantSuspended):
            tenants.application(Kennel)
        tenants.purge("acme")
        with pytest.raises(TenantPurged):
            tenants.application(Kennel)
        with pytest.raises(TenantPurged):
            tenants.current  # noqa: B018 (the question is what it raises)
    with pytest.raises(TenantPurged):
        kennel.register("Rex")
    assert isinstance(globex.get(Kennel).register("Rex"), UUID)

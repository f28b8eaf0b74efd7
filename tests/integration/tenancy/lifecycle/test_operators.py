"""Operators read suspended and archived tenants, never write, and leave a trace. Loops set the current tenant."""

from __future__ import annotations

import contextvars
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy import Tenancy
from tenancy.errors import (
    InvalidArgument,
    NoCurrentTenant,
    ReadOnlyScope,
    TenancyError,
    TenantArchived,
    TenantDeleted,
    TenantSuspended,
)
from tenancy.registry.cache import DELAY
from tests.samples.kennels import Kennel
from tests.support.deadlines import run_together

pytestmark = pytest.mark.usefixtures("no_purge_delay")


@pytest.fixture
def kennel(tenants: Tenancy) -> Kennel:
    """The application of a tenant with a dog."""
    found = tenants.create("acme").get(Kennel)
    found.register("Fido")
    return found


@pytest.mark.parametrize("verb", ["suspend", "archive"])
def test_an_operator_reads_what_is_offline(verb: str, tenants: Tenancy, kennel: Kennel) -> None:
    getattr(tenants, verb)("acme")
    with tenants.scope("acme", as_operator="op:7"):
        assert tenants.current.slug == "acme"
        assert tenants.application(Kennel).names() == kennel.names() == ["Fido"]
    with pytest.raises((TenantSuspended, TenantArchived)):
        kennel.names()
    last = tenants.history("acme")[-1]
    assert (last.action, last.actor) == ("inspect", "op:7")
    assert last.status == tenants["acme"].status


def test_an_operator_never_writes(tenants: Tenancy, kennel: Kennel) -> None:
    def try_to_write() -> None:
        with pytest.raises(ReadOnlyScope, match="open for reading only"):
            kennel.register("Rex")
        recorder = cast("SQLAlchemyApplicationRecorder", kennel.recorder)
        with pytest.raises(ReadOnlyScope), recorder.transaction():
            pass

    with tenants.scope("acme", as_operator="op:7"):
        try_to_write()
        with tenants.scope("acme"):  # does not lift it
            try_to_write()
        tenants.suspend("acme")
        try_to_write()
        tenants.resume("acme")
        inherited = contextvars.copy_context()
    inherited.run(try_to_write)
    kennel.register("Rex")
    assert kennel.names() == ["Fido", "Rex"]


def test_only_this_tenant_and_only_inside_of_the_scope(tenants: Tenancy, kennel: Kennel) -> None:
    globex = tenants.create("globex").get(Kennel)
    tenants.suspend("acme")
    with tenants.scope("acme", as_operator="op:7"):
        globex.register("Rex")
        inherited = contextvars.copy_context()
        tenants.suspend("globex")
        with pytest.raises(TenantSuspended):
            globex.names()

        def ask() -> None:
            with pytest.raises(TenantSuspended):
                kennel.names()

        run_together([ask])  # another thread is not in the scope
    with pytest.raises(TenantSuspended):
        inherited.run(kennel.names)


def test_a_left_scope_of_an_operator_does_not_bind_the_next_request(tenants: Tenancy, kennel: Kennel) -> None:
    """A server may start a request in the context of the request before."""
    with tenants.scope("acme", as_operator="op:7"):
        inherited = contextvars.copy_context()

    def next_request() -> None:
        with tenants.scope("acme"):
            kennel.register("Rex")

    inherited.run(next_request)
    assert kennel.names() == ["Fido", "Rex"]


def test_what_no_operator_reads(tenants: Tenancy, kennel: Kennel) -> None:
    tenants.delete("acme")
    with pytest.raises(TenantDeleted):
        tenants.scope("acme", as_operator="op:7")
    tenants.undelete("acme")
    for wrong in ("", "Jane Doe", "jane@example.com"):
        with pytest.raises(TenancyError, match="Invalid actor"):
            tenants.scope("acme", as_operator=wrong)
    with pytest.raises(InvalidArgument, match="as_operator is of type int"):
        tenants.scope("acme", as_operator=7)  # type: ignore[arg-type]
    assert [change.action for change in tenants.history("acme")][2:] == ["delete", "undelete"]
    assert kennel.names() == ["Fido"]


def test_a_purge_waits_for_the_process_of_an_operator(
    tenants: Tenancy, kennel: Kennel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants.archive("acme")
    with tenants.scope("acme", as_operator="op:7"):
        assert kennel.names() == ["Fido"]
    waits: list[float] = []
    monkeypatch.setattr("tenancy.lifecycle.purging.time", SimpleNamespace(sleep=waits.append))
    monkeypatch.setattr("tenancy.lifecycle.purging.DELAY", DELAY)
    tenants.purge("acme")
    assert waits == [DELAY]


# -- each --


def names(tenants: Tenancy, **conditions: Any) -> dict[str, list[str]]:
    found = {}
    for tenant in tenants.each(**conditions):
        assert tenants.current.id == tenant.id
        found[tenant.slug] = tenants.application(Kennel).names()
    return found


def test_each_tenant_is_the_current_one_in_its_turn(tenants: Tenancy) -> None:
    for slug, plan in (("acme", "free"), ("globex", "gold"), ("initech", "free"), ("umbrella", "free")):
        tenants.create(slug, metadata={"plan": plan}).get(Kennel).register(f"dog of {slug}")
    tenants.suspend("umbrella")
    assert list(names(tenants)) == ["acme", "globex", "initech"]
    assert names(tenants, where={"plan": "free"}) == {"acme": ["dog of acme"], "initech": ["dog of initech"]}
    assert names(tenants, status="suspended", as_operator="op:7") == {"umbrella": ["dog of umbrella"]}
    assert len(names(tenants, status=None, as_operator="op:7")) == 4
    with pytest.raises(TenantSuspended):
        names(tenants, status="suspended")
    with pytest.raises(NoCurrentTenant):
        _ = tenants.current


def test_a_loop_that_ends_early_leaves_the_scope(tenants: Tenancy, kennel: Kennel) -> None:
    tenants.create("globex")
    for tenant in tenants.each():
        assert tenant.slug == "acme"
        break
    with pytest.raises(NoCurrentTenant):
        _ = tenants.current

    def fail() -> None:
        for _ in tenants.each():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(NoCurrentTenant):
        _ = tenants.current
    assert kennel.names() == ["Fido"]


def test_a_tenant_that_is_changed_meanwhile_is_skipped(tenants: Tenancy) -> None:
    for slug in ("acme", "globex", "initech", "umbrella"):
        tenants.create(slug, metadata={"plan": "free"})
    seen = []
    for tenant in tenants.each(where={"plan": "free"}):
        seen.append(tenant.slug)
        if tenant.slug == "acme":
            tenants.suspend("globex")
            tenants.update("initech", metadata={"plan": "gold"})
            tenants.purge("umbrella")
    assert seen == ["acme"]

"""Each point at which a status is checked refuses a call that no other point would refuse.

The suspension is known: the process that suspends evicts the tenant from its cache.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import StoredEvent

from tenancy import Tenancy, Tenant
from tenancy.errors import TenantSuspended
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel


@pytest.fixture
def tenants(fleet: MakeFleet, tmp_path: Path) -> Tenancy:
    """A fleet whose registry is in another file: a file has one writer, and suspending would wait for a transaction."""
    return fleet(
        TENANCY_CONTROL_URL=f"sqlite:///{tmp_path / 'control.db'}",
        AGGREGATE_CACHE_MAXSIZE=10,
        AGGREGATE_CACHE_FASTFORWARD="no",
    )


@pytest.fixture
def acme(tenants: Tenancy) -> Tenant:
    return tenants.create("acme")


def stored_event() -> StoredEvent:
    return StoredEvent(uuid4(), 1, "tests.samples.kennels:Dog.Registered", b"{}")


@pytest.mark.parametrize("known_as", ["slug", "earlier object"])
def test_scope_refuses_code_that_calls_no_application(tenants: Tenancy, acme: Tenant, known_as: str) -> None:
    tenants.suspend("acme")
    with pytest.raises(TenantSuspended), tenants.scope("acme" if known_as == "slug" else acme):
        pytest.fail("The block was entered.")


def test_application_refuses_what_its_memory_would_answer(tenants: Tenancy, acme: Tenant) -> None:
    kennel = acme.get(Kennel)
    dog_id = kennel.register("Fido")
    assert kennel.name_of(dog_id) == "Fido"
    tenants.suspend("acme")
    assert kennel.name_of(dog_id) == "Fido"  # from the cache of aggregates: nothing is read
    with pytest.raises(TenantSuspended):
        acme.get(Kennel)


def test_begin_refuses_the_users_own_sql(tenants: Tenancy, acme: Tenant) -> None:
    kennel = acme.get(Kennel)
    tenants.suspend("acme")
    transaction = kennel.recorder.transaction(commit=False)  # type: ignore[attr-defined]
    with pytest.raises(TenantSuspended), transaction as session:
        session.execute(sa.text("SELECT 1"))


@pytest.mark.parametrize("call", ["read", "write"])
def test_call_in_a_transaction_refuses_what_the_user_could_commit(tenants: Tenancy, acme: Tenant, call: str) -> None:
    kennel = acme.get(Kennel)
    recorder = kennel.recorder

    def record_and_commit() -> None:
        with recorder.transaction() as session:  # type: ignore[attr-defined]
            tenants.suspend("acme")
            if call == "read":
                recorder.max_notification_id()
            else:
                recorder.insert_events([stored_event()])
            session.commit()  # by the user, before the block ends

    with pytest.raises(TenantSuspended):
        record_and_commit()
    tenants.resume("acme")
    assert not recorder.max_notification_id()


def test_commit_refuses_what_was_written_before(tenants: Tenancy, acme: Tenant) -> None:
    kennel = acme.get(Kennel)
    recorder = kennel.recorder

    def record_and_suspend() -> None:
        with recorder.transaction():  # type: ignore[attr-defined]
            recorder.insert_events([stored_event()])
            tenants.suspend("acme")

    with pytest.raises(TenantSuspended):
        record_and_suspend()
    tenants.resume("acme")
    assert not recorder.max_notification_id()

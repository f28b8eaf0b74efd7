"""The number of admission checks per call; every call inside a transaction is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import InterfaceError, StoredEvent, Tracking
from eventsourcing.utils import get_topic
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy import Tenancy
from tenancy.errors import TenantSuspended
from tenancy.persistence import TenantDatastore
from tenancy.registry.cache import RegistryCache
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel, Visits


class HookedRecorder(SQLAlchemyApplicationRecorder):
    """Overrides a hook, so each write needs a session."""

    def _insert_events(self, session: Session, stored_events: Any, **kwargs: Any) -> None:
        assert session.in_transaction()


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[str]]:
    """Return a function that counts the checks of a call."""
    found: list[str] = []
    admit = TenantDatastore.admit

    def count(datastore: TenantDatastore, *, writes: bool) -> None:
        found.append("write" if writes else "read")
        admit(datastore, writes=writes)

    monkeypatch.setattr(TenantDatastore, "admit", count)

    def of(call: Callable[[], object]) -> list[str]:
        found.clear()
        call()
        return found.copy()

    return of


def event() -> StoredEvent:
    return StoredEvent(originator_id=uuid4(), originator_version=1, topic="t", state=b"{}")


def inside(recorder: Any, *calls: Callable[[], object], commit: bool = True) -> Callable[[], None]:
    """Return a function that makes calls in one transaction."""

    def call() -> None:
        with recorder.transaction(commit=commit):
            for each in calls:
                each()

    return call


def test_a_call_checks_once(tenants: Tenancy, checks: Callable[[Callable[[], object]], list[str]]) -> None:
    acme = tenants.create("acme")
    kennel, visits = acme.get(Kennel), acme.get(Visits)
    recorder: Any = kennel.recorder
    position = iter(range(1, 100))

    def write() -> object:
        return recorder.insert_events([event()])

    def read() -> object:
        return recorder.select_notifications(1, 10)

    def track() -> None:
        visits.recorder.insert_tracking(Tracking("Kennel", next(position)))

    assert checks(write) == ["write"]
    assert checks(read) == ["read"]
    assert checks(track) == ["write"]
    assert checks(lambda: kennel.register("Fido")) == ["write"]


def test_a_transaction_also_checks_at_its_begin_and_end(
    tenants: Tenancy, checks: Callable[[Callable[[], object]], list[str]]
) -> None:
    acme = tenants.create("acme")
    recorder: Any = acme.get(Kennel).recorder
    visits: Any = acme.get(Visits).recorder

    def write() -> object:
        return recorder.insert_events([event()])

    def read() -> object:
        return recorder.select_notifications(1, 10)

    assert checks(inside(recorder, write)) == ["write", "write", "write"]
    assert checks(inside(recorder, write, write, read)) == ["write", "write", "write", "read", "write"]
    assert checks(inside(recorder, read, commit=False)) == ["read", "read"]
    track = checks(inside(visits, lambda: visits.insert_tracking(Tracking("Kennel", 1))))
    assert track == ["write", "write", "write"]


def test_a_write_with_hooks_checks_like_its_transaction(
    fleet: MakeFleet, checks: Callable[[Callable[[], object]], list[str]]
) -> None:
    tenants = fleet(KENNEL_APPLICATION_RECORDER_TOPIC=get_topic(HookedRecorder))
    kennel = tenants.create("acme").get(Kennel)
    assert checks(lambda: kennel.register("Fido")) == ["write", "write", "write"]


def test_a_write_in_the_users_session_checks_once(
    tenants: Tenancy, checks: Callable[[Callable[[], object]], list[str]]
) -> None:
    recorder: Any = tenants.create("acme").get(Kennel).recorder
    with recorder.datastore.session_maker() as session:
        recorder.insert_events([event()], session=session)  # the first one also reads the tenant's quotas
        assert checks(lambda: recorder.insert_events([event()], session=session)) == ["write"]
        session.commit()


@pytest.fixture
def apart(fleet: MakeFleet, tmp_path: Path) -> Tenancy:
    """A fleet with a separate registry file, because a suspension would wait for the writer of the same file."""
    return fleet(TENANCY_CONTROL_URL=f"sqlite:///{tmp_path / 'control.db'}")


def test_an_open_transaction_refuses_the_next_call(apart: Tenancy) -> None:
    acme = apart.create("acme")
    recorder: Any = acme.get(Kennel).recorder
    visits: Any = acme.get(Visits).recorder
    calls: list[tuple[Any, Callable[[], object]]] = [
        (recorder, lambda: recorder.insert_events([event()])),
        (recorder, lambda: recorder.select_notifications(1, 10)),
        (recorder, lambda: recorder.transaction().__enter__()),
        (visits, lambda: visits.insert_tracking(Tracking("Kennel", 1))),
    ]
    for owner, call in calls:
        with owner.transaction(commit=True):
            apart.suspend("acme", reads=False)
            with pytest.raises(TenantSuspended):
                call()
            apart.resume("acme")
    assert recorder.max_notification_id() is None


def test_application_that_another_thread_closes_during_a_check_is_refused_as_closed(
    sqlite_url: str, make_fleet: Callable[[str], MakeFleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    kennel = make_fleet(sqlite_url)().create("acme").get(Kennel)
    monkeypatch.setattr(RegistryCache, "admit", lambda *_, **__: kennel.close())
    with pytest.raises(InterfaceError, match="closed"):
        kennel.recorder.max_notification_id()

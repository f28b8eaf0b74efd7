"""Hooks of recorders that users subclass."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, Tracking
from eventsourcing.utils import get_topic
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import (
    SQLAlchemyAggregateRecorder,
    SQLAlchemyApplicationRecorder,
    SQLAlchemyProcessRecorder,
    SQLAlchemyTrackingRecorder,
)
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.invoices import Invoice, invoices
from tests.support.applications import stored_events


class Hooks:
    """The calls of the hooks below."""

    calls: ClassVar[list[str]] = []
    error: ClassVar[type[Exception] | None] = None

    @classmethod
    def called(cls, session: Session, hook: str, number: int) -> None:
        """Note the call, write an invoice, and fail if requested."""
        cls.calls.append(hook)
        session.add(Invoice(number=number))
        if cls.error is not None:
            raise cls.error


@pytest.fixture(autouse=True)
def no_calls() -> None:
    """Remove the calls of other tests."""
    Hooks.calls.clear()
    Hooks.error = None


class WithEventsHook(SQLAlchemyApplicationRecorder):
    """Writes before events are written."""

    def _insert_events(self, session: Session, stored_events: Any, **kwargs: Any) -> None:
        Hooks.called(session, "_insert_events", 1)
        super()._insert_events(session, stored_events, **kwargs)


class WithStoredEventsHook(SQLAlchemyApplicationRecorder):
    """Writes while events are written."""

    def _insert_stored_events(self, session: Session, stored_events: Any, **kwargs: Any) -> list[int]:
        ids = super()._insert_stored_events(session, stored_events, **kwargs)
        Hooks.called(session, f"_insert_stored_events {ids}", 2)
        return ids


class WithSnapshotsHook(SQLAlchemyAggregateRecorder):
    """Writes before unordered events or snapshots are written."""

    def _insert_events(self, session: Session, stored_events: Any, **kwargs: Any) -> None:
        super()._insert_events(session, stored_events, **kwargs)
        Hooks.called(session, "_insert_events", 3)


class WithTrackingHook(SQLAlchemyTrackingRecorder):
    """Writes when a position is written."""

    def _insert_tracking(self, session: Session, tracking: Tracking) -> None:
        super()._insert_tracking(session, tracking)
        Hooks.called(session, f"_insert_tracking {tracking.notification_id}", 4)


class WithProcessHooks(SQLAlchemyProcessRecorder):
    """Has all hooks."""

    def _insert_events(self, session: Session, stored_events: Any, **kwargs: Any) -> None:
        super()._insert_events(session, stored_events, **kwargs)
        Hooks.called(session, f"_insert_events {sorted(kwargs)}", 5)

    def _insert_tracking(self, session: Session, tracking: Tracking) -> None:
        super()._insert_tracking(session, tracking)
        Hooks.called(session, f"_insert_tracking {tracking.notification_id}", 6)


@pytest.mark.parametrize(
    ("recorder_class", "calls", "numbers"),
    [(WithEventsHook, ["_insert_events"], [1]), (WithStoredEventsHook, ["_insert_stored_events [1, 2]"], [2])],
)
def test_hook_writes_with_events(
    recorder_class: type[SQLAlchemyApplicationRecorder],
    calls: list[str],
    numbers: list[int],
    variables: dict[str, str],
    engine: sa.Engine,
) -> None:
    variables["APPLICATION_RECORDER_TOPIC"] = get_topic(recorder_class)
    with TrainingSchool(env=variables) as school:
        dog = Dog("Fido")
        dog.add_trick("roll over")
        assert [recording.notification.id for recording in school.save(dog)] == [1, 2]
        assert calls == Hooks.calls
        assert invoices(engine) == numbers
        Hooks.error = ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            school.register("Rex")
        assert school.names() == ["Fido"]
        assert invoices(engine) == numbers


def test_hook_writes_in_the_users_transaction(variables: dict[str, str], engine: sa.Engine) -> None:
    variables["APPLICATION_RECORDER_TOPIC"] = get_topic(WithEventsHook)
    with TrainingSchool(env=variables) as school:
        with school.recorder.transaction() as session:
            school.register("Fido")
            assert Hooks.calls == ["_insert_events"]
            session.rollback()
        with Session(engine) as session:
            school.save(Dog("Rex"), session=session)
            session.rollback()
        assert school.names() == []
        assert invoices(engine) == []
        assert Hooks.calls == ["_insert_events"] * 2


def test_hook_writes_with_snapshots(variables: dict[str, str], engine: sa.Engine) -> None:
    factory = SQLAlchemyFactory({**variables, "AGGREGATE_RECORDER_TOPIC": get_topic(WithSnapshotsHook)})
    try:
        recorder = factory.aggregate_recorder("snapshots")
        assert recorder.insert_events(stored_events()) is None
        assert Hooks.calls == ["_insert_events"]
        assert invoices(engine) == [3]
    finally:
        factory.close()


def test_hook_writes_with_a_position(variables: dict[str, str], engine: sa.Engine) -> None:
    factory = SQLAlchemyFactory({**variables, "TRACKING_RECORDER_TOPIC": get_topic(WithTrackingHook)})
    try:
        recorder: SQLAlchemyTrackingRecorder = factory.tracking_recorder()
        recorder.insert_tracking(Tracking("upstream", 7))
        assert Hooks.calls == ["_insert_tracking 7"]
        assert invoices(engine) == [4]
        with pytest.raises(IntegrityError):
            recorder.insert_tracking(Tracking("upstream", 7))
        Hooks.error = ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            recorder.insert_tracking(Tracking("upstream", 8))
        assert recorder.max_tracking_id("upstream") == 7
        assert invoices(engine) == [4]
    finally:
        factory.close()


def test_hooks_write_during_processing(variables: dict[str, str], engine: sa.Engine) -> None:
    factory = SQLAlchemyFactory({**variables, "PROCESS_RECORDER_TOPIC": get_topic(WithProcessHooks)})
    try:
        recorder = factory.process_recorder()
        assert recorder.insert_events(stored_events(), tracking=Tracking("upstream", 7)) == [1]
        assert Hooks.calls == ["_insert_tracking 7", "_insert_events ['tracking']"]
        assert invoices(engine) == [5, 6]
        Hooks.error = ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            recorder.insert_events(stored_events(), tracking=Tracking("upstream", 8))
        assert recorder.max_tracking_id("upstream") == 7
        assert recorder.max_notification_id() == 1
    finally:
        factory.close()

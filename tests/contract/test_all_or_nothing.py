"""Tracking and rows of hooks are recorded with their events or not at all, whatever a user does in a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, ProgrammingError, StoredEvent, Tracking
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events, topics, twin


class Base(DeclarativeBase):
    """The user's tables."""


class View(Base):
    """The table that the user's recorder keeps beside the events."""

    __tablename__ = "view"
    id: Mapped[int] = mapped_column(primary_key=True)


class ViewRecorder(SQLAlchemyProcessRecorder):
    """Adds a row to the session, which decides when to flush it."""

    flushes: ClassVar[bool] = False

    def _insert_events(self, session: Session, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        super()._insert_events(session, stored_events, **kwargs)
        session.add(View(id=7))
        if self.flushes:
            session.flush()


class FlushingViewRecorder(ViewRecorder):
    """Flushes the row immediately."""

    flushes = True


@pytest.fixture
def apps(database_url: str) -> Iterator[Applications]:
    with Applications(database_url) as apps:
        yield apps


def test_tracking_is_not_recorded_without_its_events(apps: Applications) -> None:
    recorder = apps.recorder()
    events = stored_events()
    recorder.insert_events(events)
    with recorder.transaction():
        with pytest.raises(IntegrityError):
            recorder.insert_events(events, tracking=Tracking("upstream", 1))
        assert recorder.max_tracking_id("upstream") is None
        recorder.insert_events(stored_events(topic="later"), tracking=Tracking("upstream", 2))
    assert topics(recorder) == ["module:Class", "later"]
    with recorder.transaction(), pytest.raises(IntegrityError):
        recorder.insert_events(events, tracking=Tracking("upstream", 3))
    assert recorder.max_tracking_id("upstream") == 2


@pytest.mark.parametrize("recorder_class", [ViewRecorder, FlushingViewRecorder])
def test_row_of_a_hook_is_not_recorded_without_the_events(
    apps: Applications, recorder_class: type[ViewRecorder]
) -> None:
    plain = apps.recorder()
    recorder = twin(plain, recorder_class=recorder_class)
    Base.metadata.create_all(recorder.datastore.engine)
    events = stored_events()
    plain.insert_events(events)

    def rows() -> list[int]:
        with recorder.datastore.get_connection() as connection:
            return list(connection.scalars(sa.select(View.id)))

    with recorder.transaction() as session:
        with pytest.raises(IntegrityError):
            recorder.insert_events(events, tracking=Tracking("upstream", 1))
        assert session.get(View, 7) is None
    assert (rows(), recorder.max_tracking_id("upstream")) == ([], None)
    with recorder.transaction():
        recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1))
    assert (rows(), recorder.max_tracking_id("upstream")) == ([7], 1)


def test_a_transaction_object_cannot_be_entered_twice_at_once(apps: Applications) -> None:
    recorder = apps.recorder()
    transaction = recorder.transaction()
    with pytest.raises(ZeroDivisionError), transaction:  # noqa: PT012 (the block rolls back)
        with pytest.raises(ProgrammingError, match="open already"), transaction:
            pass
        recorder.insert_events(stored_events())
        raise ZeroDivisionError
    assert topics(recorder) == []
    with transaction:
        recorder.insert_events(stored_events())
    assert len(topics(recorder)) == 1


def test_block_whose_transaction_ended_early_raises(apps: Applications) -> None:
    """A generator opens the transaction; its caller joins it and then exhausts the generator."""
    recorder = apps.recorder()
    Base.metadata.create_all(recorder.datastore.engine)

    def hold() -> Iterator[Session]:
        with recorder.transaction() as session:
            yield session

    generator = hold()
    next(generator)
    with pytest.raises(ProgrammingError, match="has ended before"), recorder.transaction() as session:  # noqa: PT012
        next(generator, None)
        session.add(View(id=1))
        session.flush()
    session.close()
    with recorder.datastore.get_connection() as connection:
        assert connection.scalars(sa.select(View.id)).all() == []

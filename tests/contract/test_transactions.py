"""Sessions and transactions that users share with their applications' events."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, NotSupportedError, PersistenceError, Tracking
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.invoices import Base, Invoice, invoices, own_engine
from tests.support.applications import stored_events


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The user's engine."""
    with own_engine(database_url) as engine:
        yield engine


@pytest.fixture
def school(database_url: str, engine: sa.Engine) -> Iterator[TrainingSchool]:  # noqa: ARG001 (creates the user's tables)
    """An application on the same database."""
    env = {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": database_url}
    with TrainingSchool(env=env) as school:
        yield school


def test_objects_and_events_commit_together(school: TrainingSchool, engine: sa.Engine) -> None:
    with school.recorder.transaction() as session:
        assert isinstance(session, Session)
        session.add(Invoice(number=1))
        school.register("Fido")
        session.add(Invoice(number=2))
        assert invoices(engine) == []
    assert invoices(engine) == [1, 2]
    assert school.names() == ["Fido"]


def test_objects_and_events_roll_back_together(school: TrainingSchool, engine: sa.Engine) -> None:
    with suppress(ZeroDivisionError), school.recorder.transaction() as session:
        session.add(Invoice(number=1))
        session.flush()
        fido = school.register("Fido")
        assert school.knows(fido)
        raise ZeroDivisionError
    assert invoices(engine) == []
    assert school.names() == []


def test_error_of_an_object_rolls_back_the_events(school: TrainingSchool, engine: sa.Engine) -> None:
    with pytest.raises(IntegrityError), school.recorder.transaction() as session:  # noqa: PT012 (raised by its end)
        school.register("Fido")
        session.add(Invoice(number=1))
        session.flush()
        session.expunge_all()
        session.add(Invoice(number=1))  # Refused when the block ends.
    assert invoices(engine) == []
    assert school.names() == []


def test_transaction_without_commit_rolls_back(school: TrainingSchool, engine: sa.Engine) -> None:
    school.register("Fido")
    with school.recorder.transaction(commit=False) as session:
        assert school.names() == ["Fido"]
        assert session.scalars(sa.select(Invoice.number)).all() == []
    assert invoices(engine) == []


def continue_after_conflicts(school: TrainingSchool, session: Session) -> None:
    """Record conflicting events between others."""
    fido = school.register("Fido")
    session.add(Invoice(number=1))
    stale: Dog = school.repository.get(fido)
    dog: Dog = school.repository.get(fido)
    dog.add_trick("roll over")
    school.save(dog)
    stale.add_trick("play dead")
    with pytest.raises(IntegrityError):
        school.save(stale)
    session.add(Invoice(number=2))
    school.register("Rex")
    with pytest.raises(IntegrityError):
        school.recorder.insert_events([*stored_events(), *stored_events(2, fido, first_version=2)])
    session.add(Invoice(number=3))


def check_that_the_user_continued(school: TrainingSchool, engine: sa.Engine) -> None:
    assert invoices(engine) == [1, 2, 3]
    assert school.names() == ["Fido", "Rex"]
    notifications = school.recorder.select_notifications(start=None, limit=9)
    assert [notification.originator_version for notification in notifications] == [1, 2, 1]
    assert school.repository.get(UUID(str(notifications[0].originator_id))).tricks == ["roll over"]


def test_user_continues_after_a_conflict(school: TrainingSchool, engine: sa.Engine) -> None:
    with school.recorder.transaction() as session:
        continue_after_conflicts(school, session)
    check_that_the_user_continued(school, engine)


def test_user_continues_after_a_conflict_of_a_tracking_position(database_url: str, engine: sa.Engine) -> None:
    datastore = SQLAlchemyDatastore(url=database_url)
    try:
        recorder = SQLAlchemyProcessRecorder(datastore)
        recorder.create_table()
        with recorder.transaction() as session:
            recorder.insert_events(stored_events(), tracking=Tracking("upstream", 7))
            with pytest.raises(IntegrityError):
                recorder.insert_events(stored_events(), tracking=Tracking("upstream", 7))
            with pytest.raises(IntegrityError):
                recorder.insert_tracking(Tracking("upstream", 6))
            session.add(Invoice(number=1))
        assert recorder.max_tracking_id("upstream") == 7
        assert recorder.max_notification_id() == 1
        assert invoices(engine) == [1]
    finally:
        datastore.close()


@pytest.mark.parametrize("database_url", ["psycopg2", "psycopg"], indirect=True)
def test_without_savepoints_a_conflict_ends_the_transaction(
    school: TrainingSchool, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that the tests above can fail: as in the published package, a conflict ends the transaction."""
    run = SQLAlchemyDatastore.run_in_session

    def run_without_savepoint(*args: Any, **kwargs: Any) -> Any:
        return run(*args, **{**kwargs, "savepoint": False})

    monkeypatch.setattr(SQLAlchemyDatastore, "run_in_session", run_without_savepoint)
    with pytest.raises(PersistenceError, match="aborted"), school.recorder.transaction() as session:
        continue_after_conflicts(school, session)
    assert invoices(engine) == []


# -- sessions that the user opened --


def test_events_commit_with_a_given_session(school: TrainingSchool, engine: sa.Engine) -> None:
    dog, other = Dog("Fido"), Dog("Rex")
    with Session(engine) as session:
        session.add(Invoice(number=1))
        assert [recording.notification.id for recording in school.save(dog, session=session)] == [1]
        ids = school.recorder.insert_events(stored_events(2), session=session)
        assert ids == [2, 3]
        assert not school.knows(dog.id)
        session.commit()
        assert school.knows(dog.id)
        school.save(other, session=session)
        session.add(Invoice(number=2))
        session.rollback()
    assert not school.knows(other.id)
    assert invoices(engine) == [1]
    assert len(school.recorder.select_notifications(start=None, limit=9)) == 3


def test_snapshots_and_positions_commit_with_a_given_session(database_url: str, engine: sa.Engine) -> None:
    datastore = SQLAlchemyDatastore(url=database_url)
    try:
        recorder = SQLAlchemyProcessRecorder(datastore)
        recorder.create_table()
        with Session(engine) as session:
            recorder.insert_events(stored_events(), tracking=Tracking("upstream", 7), session=session)
            session.rollback()
            assert recorder.max_tracking_id("upstream") is None
            recorder.insert_events(stored_events(), tracking=Tracking("upstream", 7), session=session)
            session.commit()
        assert recorder.max_tracking_id("upstream") == 7
        assert recorder.max_notification_id() is not None
    finally:
        datastore.close()


def test_given_session_continues_after_a_conflict(school: TrainingSchool, engine: sa.Engine) -> None:
    fido = school.register("Fido")
    with Session(engine) as session:
        session.add(Invoice(number=1))
        with pytest.raises(IntegrityError):
            school.recorder.insert_events(stored_events(1, fido), session=session)
        school.save(Dog("Rex"), session=session)
        session.commit()
    assert invoices(engine) == [1]
    assert school.names() == ["Fido", "Rex"]


@pytest.mark.parametrize("database_url", ["psycopg2"], indirect=True)
def test_session_of_another_kind_of_database_is_refused(school: TrainingSchool) -> None:
    with own_engine("sqlite://") as other, Session(other) as session:
        with pytest.raises(NotSupportedError, match="sqlite"):
            school.save(Dog("Fido"), session=session)
        session.rollback()
    assert school.names() == []


@pytest.mark.parametrize("database_url", ["psycopg2", "psycopg", "pg8000"], indirect=True)
def test_connection_commits_again_after_a_session(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like SQLAlchemy before 2.0.20, which leaves implicit transactions that are never committed."""

    def reset_as_before(dialect: sa.engine.default.DefaultDialect, connection: Any) -> None:
        dialect.set_isolation_level(connection, "READ COMMITTED")

    monkeypatch.setattr(sa.engine.default.DefaultDialect, "reset_isolation_level", reset_as_before)
    datastore = SQLAlchemyDatastore(url=database_url)
    try:
        recorder = SQLAlchemyProcessRecorder(datastore)
        recorder.create_table()
        with recorder.transaction():
            recorder.insert_events(stored_events())
        recorder.insert_events(stored_events())
        with own_engine(database_url) as engine, engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM stored_events")) == 2
    finally:
        datastore.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_objects_and_events_share_a_transaction_in_memory(url: str) -> None:
    with TrainingSchool(env={"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": url}) as school:
        engine = school.recorder.datastore.engine
        Base.metadata.create_all(engine)
        with suppress(ZeroDivisionError), school.recorder.transaction() as session:
            session.add(Invoice(number=1))
            school.register("Fido")
            raise ZeroDivisionError
        assert (invoices(engine), school.names()) == ([], [])
        with school.recorder.transaction() as session:
            continue_after_conflicts(school, session)
        check_that_the_user_continued(school, engine)

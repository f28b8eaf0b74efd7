"""Recorders that users share and query: views, record classes, one datastore for many recorders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import IntegrityError, ProgrammingError, StoredEvent, Tracking
from eventsourcing.projection import Projection
from eventsourcing.tests.projection import AggregateEventCountersProjection
from eventsourcing.utils import Environment, get_topic
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.models import NotificationTrackingRecord, SnapshotRecord, StoredEventRecord
from eventsourcing_sqlalchemy.recorders import (
    SQLAlchemyAggregateRecorder,
    SQLAlchemyApplicationRecorder,
    SQLAlchemyProcessRecorder,
    SQLAlchemyTrackingRecorder,
)
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.invoices import Invoice, invoices
from tests.samples.training_school.views import CountersView
from tests.support.applications import stored_events


@pytest.fixture
def factory(variables: dict[str, str]) -> Iterator[SQLAlchemyFactory]:
    """The factory of an application in each place."""
    factory = SQLAlchemyFactory(Environment("School", variables))
    yield factory
    factory.close()


@pytest.fixture
def datastore(database_url: str) -> Iterator[SQLAlchemyDatastore]:
    """A datastore that the user constructed."""
    datastore = SQLAlchemyDatastore(url=database_url)
    yield datastore
    datastore.close()


# -- views --


class InvoicesView(SQLAlchemyTrackingRecorder):
    """Writes an invoice for each dog, in one transaction with the position."""

    def add_invoice(self, tracking: Tracking) -> None:
        """Write an invoice."""
        with self.transaction(commit=True) as session:
            session.add(Invoice(number=tracking.notification_id))
            self._insert_tracking(session, tracking)


class Invoicing(Projection[InvoicesView]):
    """Invoices every registered dog."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Invoice."""
        self.view.add_invoice(tracking)


def test_projection_uses_a_view_named_by_topic(variables: dict[str, str], engine: sa.Engine) -> None:
    env = {**variables, "INVOICING_TRACKING_RECORDER_TOPIC": get_topic(InvoicesView)}
    factory = SQLAlchemyFactory(Environment(Invoicing.name, env))
    view: SQLAlchemyTrackingRecorder = factory.tracking_recorder()
    assert type(view) is InvoicesView
    projection = Invoicing(view)
    with TrainingSchool(env=env) as school:
        school.register("Fido")
        school.register("Rex")
        for notification in school.recorder.select_notifications(start=None, limit=9):
            tracking = Tracking(school.name, notification.id)
            projection.process_event(school.mapper.to_domain_event(notification), tracking)
            with pytest.raises(IntegrityError):
                projection.process_event(school.mapper.to_domain_event(notification), tracking)
        assert view.max_tracking_id(school.name) == 2
    assert invoices(engine) == [1, 2]
    factory.close()


def test_view_may_be_configured_by_class(factory: SQLAlchemyFactory) -> None:
    view = factory.tracking_recorder(CountersView)
    AggregateEventCountersProjection(view).process_event(Aggregate().pending_events[0], Tracking("upstream", 1))
    assert view.get_created_event_counter() == 1
    assert view.max_tracking_id("upstream") == 1


def test_table_of_a_view_is_in_its_applications_place(database_url: str) -> None:
    for application in ("one", "x" * 40):
        env = Environment(application, {"SQLALCHEMY_URL": database_url, "SQLALCHEMY_TABLE_PREFIX": "acme_"})
        factory = SQLAlchemyFactory(env)
        view = factory.tracking_recorder(SQLAlchemyTrackingRecorder)
        tables = [view.own_table(f"{'counts' * 3}{number}", sa.Column("n", sa.Integer)) for number in range(2)]
        limit = factory.datastore.dialect.identifier_limit or 1000
        begin = f"acme_{application}_tracking_"[: limit - 9]
        assert all(table.name.startswith(begin) and len(table.name) <= limit for table in tables)
        assert tables[0].name != tables[1].name
        for _ in range(2):
            tables[0].metadata.create_all(factory.datastore.engine)
        factory.close()


# -- record classes --


def test_events_and_positions_are_queried_as_objects(factory: SQLAlchemyFactory, engine: sa.Engine) -> None:
    recorder = factory.process_recorder()
    assert isinstance(recorder, SQLAlchemyProcessRecorder)
    record_class = recorder.events_record_cls
    assert issubclass(record_class, StoredEventRecord)
    assert recorder.events_record_cls is record_class
    first, second = uuid4(), uuid4()
    recorder.insert_events(stored_events(2, first), tracking=Tracking("upstream", 7))
    recorder.insert_events(stored_events(1, second, topic="other:Topic", state=b"state"))
    with Session(engine) as session:
        query = sa.select(record_class).where(record_class.topic == "other:Topic")
        record = session.scalars(query).one()
        assert (record.id, record.originator_id, record.originator_version) == (3, second, 1)
        assert (record.topic, record.state) == ("other:Topic", b"state")
        assert session.query(record_class).filter(record_class.originator_id == first).count() == 2
        position = session.get(recorder.tracking_record_cls, "upstream")
        assert isinstance(position, NotificationTrackingRecord)
        assert (position.application_name, position.notification_id) == ("upstream", 7)
    with recorder.transaction() as session:
        recorder.insert_events(stored_events(1, second, first_version=2))
        assert session.query(record_class).count() == 4
        session.rollback()
    with Session(engine) as session:
        assert session.query(record_class).count() == 3


def test_snapshots_are_queried_as_objects(factory: SQLAlchemyFactory, engine: sa.Engine) -> None:
    recorder = factory.aggregate_recorder("snapshots")
    assert isinstance(recorder, SQLAlchemyAggregateRecorder)
    originator_id = uuid4()
    recorder.insert_events(stored_events(1, originator_id, first_version=5))
    with Session(engine) as session:
        record = session.get(recorder.events_record_cls, (originator_id, 5))
        assert isinstance(record, SnapshotRecord)
        assert record.topic == "module:Class"
        assert session.execute(sa.select(recorder.events_table.c.originator_version)).scalars().all() == [5]


def test_text_ids_are_queried_as_objects(variables: dict[str, str], engine: sa.Engine) -> None:
    factory = SQLAlchemyFactory({**variables, "ORIGINATOR_ID_TYPE": "text"})
    recorder = factory.application_recorder()
    assert isinstance(recorder, SQLAlchemyApplicationRecorder)
    recorder.insert_events([StoredEvent("dog-1", 1, "topic", b"")])
    with Session(engine) as session:
        assert session.scalars(sa.select(recorder.events_record_cls.originator_id)).all() == ["dog-1"]
    factory.close()


# -- the user's datastores --


def test_one_datastore_serves_many_recorders(datastore: SQLAlchemyDatastore, engine: sa.Engine) -> None:
    events = SQLAlchemyApplicationRecorder(datastore, events_table_name="school_events")
    positions = SQLAlchemyTrackingRecorder(datastore, tracking_table_name="school_tracking")
    snapshots = SQLAlchemyAggregateRecorder(datastore, events_table_name="school_snapshots", for_snapshots=True)
    for recorder in (events, positions, snapshots):
        recorder.create_table()
    with suppress(ZeroDivisionError), events.transaction() as session:
        session.add(Invoice(number=1))
        events.insert_events(stored_events())
        positions.insert_tracking(Tracking("upstream", 1))
        snapshots.insert_events(stored_events(1, UUID(int=1)))
        raise ZeroDivisionError
    assert invoices(engine) == []
    assert events.max_notification_id() is None
    assert positions.max_tracking_id("upstream") is None
    assert snapshots.select_events(UUID(int=1)) == []
    with positions.transaction():
        events.insert_events(stored_events())
        positions.insert_tracking(Tracking("upstream", 1))
    assert positions.max_tracking_id("upstream") == 1
    assert events.max_notification_id() is not None


def test_datastore_uses_a_session_maker(engine: sa.Engine) -> None:
    maker = sessionmaker(bind=engine, autoflush=False)
    datastore = SQLAlchemyDatastore(session_maker=maker)
    assert datastore.session_maker is maker
    assert datastore.engine is engine
    recorder = SQLAlchemyApplicationRecorder(datastore)
    recorder.create_table()
    with recorder.transaction() as session:
        assert not session.autoflush
        recorder.insert_events(stored_events())
        session.add(Invoice(number=1))
    assert invoices(engine) == [1]
    assert recorder.max_notification_id() == 1
    datastore.close()
    assert invoices(engine) == [1]


def test_session_maker_without_an_engine_is_refused() -> None:
    with pytest.raises(ProgrammingError, match="bind"):
        SQLAlchemyDatastore(session_maker=sessionmaker())


def test_datastore_uses_a_scoped_session(engine: sa.Engine, datastore: SQLAlchemyDatastore) -> None:
    sessions = scoped_session(sessionmaker(bind=engine))
    scoped = SQLAlchemyDatastore(session=sessions)
    assert scoped.scoped_session is sessions
    assert scoped.engine is engine
    recorder, observer = SQLAlchemyApplicationRecorder(scoped), SQLAlchemyApplicationRecorder(datastore)
    recorder.create_table()
    recorder.insert_events(stored_events())
    assert observer.max_notification_id() is None
    sessions.commit()
    assert observer.max_notification_id() == 1
    sessions.remove()
    scoped.close()
    datastore.set_scoped_session(sessions)
    observer.insert_events(stored_events())
    sessions.rollback()
    assert observer.max_notification_id() == 1
    sessions.remove()


def test_user_commits_a_datastores_connection(datastore: SQLAlchemyDatastore, engine: sa.Engine) -> None:
    insert = sa.insert(Invoice)
    with datastore.get_connection() as connection:
        connection.execute(insert.values(number=1))
    assert invoices(engine) == []
    with datastore.get_connection() as connection:
        connection.execute(insert.values(number=2))
        connection.commit()
    with datastore.engine.begin() as connection:
        connection.execute(insert.values(number=3))
    with datastore.session_maker() as session:
        session.add(Invoice(number=4))
        session.flush()
        session.rollback()
    assert invoices(engine) == [2, 3]


@pytest.mark.parametrize("database_url", ["psycopg2"], indirect=True)
def test_names_longer_than_the_database_allows_are_refused(datastore: SQLAlchemyDatastore) -> None:
    recorder = SQLAlchemyApplicationRecorder(datastore)
    recorder.check_identifier_length("x" * 63)
    for make in (
        lambda: recorder.check_identifier_length("x" * 64),
        lambda: SQLAlchemyApplicationRecorder(datastore, events_table_name="x" * 50),  # Its index is too long.
        lambda: SQLAlchemyTrackingRecorder(datastore, tracking_table_name="ü" * 32),
        lambda: SQLAlchemyTrackingRecorder(datastore, schema_name="x" * 64),
    ):
        with pytest.raises(ProgrammingError, match="too long"):
            make()


def test_closing_an_application_keeps_the_users_datastore_open(
    variables: dict[str, str], datastore: SQLAlchemyDatastore
) -> None:
    with Application[UUID](env=variables) as app:
        app.save(Aggregate())
    recorder = SQLAlchemyApplicationRecorder(datastore)
    recorder.create_table()
    assert recorder.insert_events(stored_events()) == [1]

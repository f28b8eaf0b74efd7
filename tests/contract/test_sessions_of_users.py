"""Autocommit engines, sessions in a transaction, interrupts: the package neither commits nor loses the user's work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, ProgrammingError
from eventsourcing.utils import Environment
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder, SQLAlchemyProcessRecorder
from tests.samples.training_school.invoices import own_engine
from tests.support.applications import Applications, stored_events, topics


def count_of_mine(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM mine").scalar_one())


def write_mine_and_events_twice(recorder: SQLAlchemyApplicationRecorder) -> None:
    events = stored_events()
    with recorder.transaction() as session:
        session.execute(sa.text("INSERT INTO mine VALUES (1)"))
        recorder.insert_events(events)
        recorder.insert_events(events)


def test_autocommit_engine_has_real_transactions_or_is_refused(database_url: str) -> None:
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE mine (a integer)")
    with closing(SQLAlchemyDatastore(engine=engine)) as datastore:
        recorder = SQLAlchemyApplicationRecorder(datastore)
        recorder.create_table()
        if engine.dialect.name == "sqlite":
            with pytest.raises(IntegrityError):
                write_mine_and_events_twice(recorder)
        else:
            with pytest.raises(ProgrammingError, match="AUTOCOMMIT"):
                write_mine_and_events_twice(recorder)
        assert count_of_mine(engine) == 0
        recorder.insert_events(stored_events())
        assert len(recorder.select_notifications(None, 10)) == 1
    engine.dispose()


def test_keyboard_interrupt_keeps_the_in_memory_database() -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with Applications("sqlite://") as apps:
        recorder = apps.recorder()
        recorder.insert_events(stored_events(topic="kept"))
        with pytest.raises(KeyboardInterrupt):
            recorder.datastore.run(interrupt)
        assert topics(recorder) == ["kept"]

        def interrupt_in_the_middle(executor: Any) -> None:
            executor.fetch("BEGIN IMMEDIATE")
            executor.fetch("CREATE TABLE half_done (a integer)")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            recorder.datastore.run(interrupt_in_the_middle)
        recorder.insert_events(stored_events(topic="later"))
        assert topics(recorder) == ["kept", "later"]
        found = recorder.datastore.run(lambda executor: executor.fetch("SELECT name FROM sqlite_master"))
        assert ("half_done",) not in [tuple(row) for row in found]


@contextmanager
def scoped(engine: sa.Engine) -> Iterator[scoped_session[Session]]:
    session = scoped_session(sessionmaker(bind=engine))
    yield session
    session.remove()


@pytest.mark.parametrize("options", [{}, {"poolclass": StaticPool}], ids=["pool of SQLAlchemy", "StaticPool"])
def test_tables_are_not_created_in_memory_while_the_scoped_session_is_in_a_transaction(options: dict[str, Any]) -> None:
    """One connection serves everything there, so creating tables would commit the session's writes."""
    engine = sa.create_engine("sqlite://", **options)
    with scoped(engine) as session:
        recorder = SQLAlchemyProcessRecorder(SQLAlchemyDatastore(session=session))
        session.execute(sa.text("CREATE TABLE mine (a integer)"))
        session.commit()
        session.execute(sa.text("INSERT INTO mine VALUES (1)"))
        with pytest.raises(ProgrammingError, match="Construct the application before"):
            recorder.create_table()
        session.rollback()
        assert session.execute(sa.text("SELECT count(*) FROM mine")).scalar() == 0
        session.rollback()
        recorder.create_table()
        recorder.insert_events(stored_events())
        session.commit()
        assert len(topics(recorder)) == 1
    engine.dispose()


def test_construction_leaves_no_connection_in_a_transaction(database_url: str) -> None:
    with own_engine(database_url) as engine, scoped(engine) as session:
        recorder = SQLAlchemyProcessRecorder(SQLAlchemyDatastore(session=session))
        recorder.create_table()
        pool: Any = engine.pool
        assert (pool.checkedout(), session().in_transaction()) == (0, False)
        recorder.create_table()  # the tables exist now
        assert (pool.checkedout(), session().in_transaction()) == (0, False)


def test_construction_keeps_the_transaction_of_the_scoped_session(database_url: str) -> None:
    with own_engine(database_url) as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE mine (a integer)")
        with scoped(engine) as session:
            recorder = SQLAlchemyProcessRecorder(SQLAlchemyDatastore(session=session))
            recorder.create_table()
            session.execute(sa.text("INSERT INTO mine VALUES (1)"))
            recorder.create_table()
            assert session().in_transaction()
            session.commit()
        assert count_of_mine(engine) == 1


def users_session() -> scoped_session[Session]:
    return scoped_session(sessionmaker(bind=sa.create_engine("sqlite://")))


def test_url_of_an_unsupported_database_is_ignored_with_a_scoped_session() -> None:
    variables = {
        "SQLALCHEMY_SCOPED_SESSION_TOPIC": f"{__name__}:users_session",
        "SQLALCHEMY_URL": "mysql://someone@somewhere/something",
    }
    factory = SQLAlchemyFactory(Environment("App", variables))
    assert factory.datastore.engine.dialect.name == "sqlite"
    factory.datastore.engine.dispose()
    factory.close()

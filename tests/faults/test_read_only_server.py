"""The server of the pooled connections becomes read-only, like a demoted primary; new connections reach another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import OperationalError, Tracking

from eventsourcing_sqlalchemy.errors import is_retryable, sqlstate
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.samples.training_school.application import TrainingSchool
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.fleets import check, fleet

Call = Callable[[SQLAlchemyProcessRecorder], Any]


@contextmanager
def read_only(database: Database) -> Iterator[None]:
    """Make connections opened in the block read-only; they stay read-only."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    try:
        yield
    finally:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("SET default_transaction_read_only = off")
            connection.exec_driver_sql(f"ALTER DATABASE {database.name} RESET default_transaction_read_only")


def fail_over(engine: sa.Engine, database: Database, connections: int = 3) -> None:
    """Fill the pool with connections to a server that has become read-only."""
    database.terminate()
    with read_only(database), ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(engine.connect())


def _in_transaction(recorder: SQLAlchemyProcessRecorder) -> None:
    with recorder.transaction() as session:
        session.execute(sa.text("SELECT 1"))
        recorder.insert_events(stored_events(topic="new"), tracking=Tracking("upstream", 1))


def _in_batches(recorder: SQLAlchemyProcessRecorder) -> None:
    run_together([lambda: recorder.insert_events(stored_events(topic="new"))] * 4)


CALLS: dict[str, tuple[int, Call]] = {
    "event": (1, lambda recorder: recorder.insert_events(stored_events(topic="new"))),
    "events and tracking": (
        3,
        lambda recorder: recorder.insert_events(stored_events(3, topic="new"), tracking=Tracking("upstream", 1)),
    ),
    "tracking": (0, lambda recorder: recorder.insert_tracking(Tracking("upstream", 1))),
    "transaction": (1, _in_transaction),
    "group": (4, _in_batches),
    "table": (
        0,
        lambda recorder: SQLAlchemyProcessRecorder(recorder.datastore, schema_name="a new one").create_table(),
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_refused_write_is_retried_on_a_new_connection(
    applications: Applications, database: Database, place: str, call: str
) -> None:
    recorder = applications.recorder(place=place)
    fail_over(recorder.datastore.engine, database)
    count, write = CALLS[call]
    write(recorder)
    assert topics(recorder) == ["new"] * count


_engine_of_a_user: list[sa.Engine] = []


def engine_of_a_user() -> sa.Engine:
    """The engine that SQLALCHEMY_ENGINE_TOPIC names."""
    return _engine_of_a_user[-1]


@pytest.mark.parametrize("call", ["event", "transaction"])
def test_on_a_users_engine_too(database: Database, driver: str, place: str, call: str) -> None:
    url = database.url(driver)
    engine = sa.create_engine(url)
    _engine_of_a_user.append(engine)
    with Applications(url) as applications:
        recorder = applications.recorder(place=place, engine_topic=f"{__name__}:engine_of_a_user")
        engine.dispose()  # a user's engine does not notice that its connections are gone
        fail_over(engine, database)
        CALLS[call][1](recorder)
        assert topics(recorder) == ["new"]
    engine.dispose()


def test_users_session_is_refused_once(applications: Applications, database: Database, place: str) -> None:
    """Only its author can repeat it. The next session uses a new connection."""
    recorder = applications.recorder(place=place)
    datastore = recorder.datastore
    fail_over(datastore.engine, database)
    insert = sa.insert(recorder.tracking_table).values(application_name="mine", notification_id=1)
    with pytest.raises(sa.exc.DBAPIError) as refused, datastore.engine.begin() as connection:
        connection.execute(insert)
    assert sqlstate(refused.value) == "25006"
    with datastore.session_maker.begin() as session:
        session.execute(insert)
        recorder.insert_events(stored_events(topic="new"), session=session)
    assert topics(recorder) == ["new"]


def test_server_that_stays_read_only_is_a_retryable_error(
    applications: Applications, database: Database, place: str
) -> None:
    recorder = applications.recorder(place=place)
    recorder.insert_events(stored_events(topic="before"))
    database.terminate()
    with read_only(database):
        for _, write in (CALLS["event"], CALLS["tracking"], CALLS["transaction"]):
            with pytest.raises(OperationalError, match="Connect to the primary") as refused:
                write(recorder)
            assert is_retryable(refused.value)
            assert topics(recorder) == ["before"]
    CALLS["event"][1](recorder)
    assert topics(recorder) == ["before", "new"]


def test_wake_ups_arrive_from_the_new_server(database: Database, place: str) -> None:
    listening = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    with Applications(database.url()) as applications:
        recorder = applications.recorder(place=place)
        subscription = recorder.subscribe()
        received = threading.Thread(target=lambda: next(subscription), daemon=True)
        received.start()
        wait_until(lambda: database.scalar(listening) != 0, "the listener is connected")
        before = database.scalar(listening)
        fail_over(recorder.datastore.engine, database)
        recorder.insert_events(stored_events())
        wait_until(lambda: database.scalar(listening) not in {0, before}, "the listener has a new connection")
        received.join(20)
        subscription.stop()


@pytest.fixture
def database_of_a_fleet(postgres_server: Postgres, postgres_database: str) -> Database:
    """The test's own database."""
    return Database(postgres_server, postgres_database)


def test_tenant_is_suspended(database_of_a_fleet: Database) -> None:
    database = database_of_a_fleet
    with fleet(database.url(), ["acme"]) as tenants:
        fail_over(tenants.fleet.registry.datastore.engine, database)
        assert tenants.suspend("acme").status == "suspended"
        database.terminate()
        with read_only(database), pytest.raises(Exception, match="target_session_attrs"):
            tenants.resume("acme")
        assert tenants.resume("acme").status == "active"


def test_tenant_is_created_and_purged(database_of_a_fleet: Database) -> None:
    database = database_of_a_fleet
    with fleet(database.url(), ["acme"]) as tenants:
        for do in (lambda: tenants.create("globex"), lambda: [tenants.purge("acme"), tenants.purge("globex")]):
            fail_over(tenants.fleet.shard.datastore.engine, database)
            do()
        assert not tenants.list()


def test_runner_logs_the_cause_and_resumes(database_of_a_fleet: Database, caplog: pytest.LogCaptureFixture) -> None:
    database, said = database_of_a_fleet, ("SQLSTATE 25006: the server is read-only", "Leases expired")
    with fleet(database.url(), ["acme"]) as tenants, tenants.runner(lease_seconds=1.0, max_attempts=1) as runner:
        school = tenants["acme"].get(TrainingSchool)
        expected = {school.register("Fido", "sit"): ["Fido", "sit"]}
        runner.wait("acme", DEADLINE_SECONDS)
        with read_only(database):
            database.terminate()
            wait_until(lambda: all(each in caplog.text for each in said), "the runner logs it")
            assert "Leases renewed" not in caplog.text
        expected[school.register("Rex", "sit")] = ["Rex", "sit"]
        runner.wait("acme", timeout=20)
        check(tenants, "acme", expected)
        assert "Leases renewed" in caplog.text
        assert {(each.lag, each.state) for each in runner.status()} == {(0, "current")}

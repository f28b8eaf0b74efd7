"""Defects 1 to 6 of the published package, which put data at risk: one test for each.

Each test also runs its check against a wrong variant, which behaves like the published package, and expects a failure.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, Notification, ProcessRecorder, Tracking
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy import transactions
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder, SQLAlchemySubscription
from eventsourcing_sqlalchemy.transactions import OpenTransaction
from tests.support.applications import Applications, stored_events, topics, twin
from tests.support.deadlines import run_together

# -- 1 --


class IgnoresSchema(SQLAlchemyFactory):
    """As published: the process recorder ignores the schema."""

    def process_recorder(self) -> ProcessRecorder:
        recorder = self.process_recorder_class(
            self.datastore, events_table_name="app_events", tracking_table_name="app_tracking"
        )
        recorder.create_table()
        return recorder


def check_process_recorder_keeps_its_schema(apps: Applications, factory_class: type[SQLAlchemyFactory]) -> None:
    acme = apps.recorder(place="acme", factory_class=factory_class)
    other = apps.recorder(place="other", factory_class=factory_class)
    acme.insert_events(stored_events(), tracking=Tracking("upstream", 7))
    assert len(topics(acme)) == 1
    assert topics(other) == []
    assert other.max_tracking_id("upstream") is None
    with acme.datastore.engine.connect() as connection:
        assert sa.inspect(connection).get_table_names(schema="public") == []
        assert sorted(sa.inspect(connection).get_table_names(schema="acme")) == ["app_events", "app_tracking"]


def test_defect_01_process_recorder_keeps_its_schema(apps: Applications) -> None:
    """Wrong variant: a factory that passes the process recorder no schema."""
    check_process_recorder_keeps_its_schema(apps, SQLAlchemyFactory)
    with pytest.raises(AssertionError):
        check_process_recorder_keeps_its_schema(apps, IgnoresSchema)


# -- 2 --


class ReadsThenWrites(SQLAlchemyProcessRecorder):
    """As published: the position is read, compared, and written later."""

    meeting = threading.Barrier(2)

    def _insert_tracking(self, session: Session, tracking: Tracking) -> None:
        position = self.max_tracking_id(tracking.application_name)
        if position is not None and position >= tracking.notification_id:
            raise IntegrityError
        with suppress(threading.BrokenBarrierError):
            self.meeting.wait(0.5)
        session.execute(
            sa.text(
                f'INSERT INTO "{self.tracking_table_name}" VALUES (:name, :id) '
                "ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id"
            ),
            {"name": tracking.application_name, "id": tracking.notification_id},
        )


def check_each_notification_is_processed_once(processors: list[SQLAlchemyProcessRecorder], notifications: int) -> None:
    def process(recorder: SQLAlchemyProcessRecorder) -> list[int]:
        processed = []
        for number in range(1, notifications + 1):
            with suppress(IntegrityError):
                recorder.insert_events(stored_events(topic=str(number)), tracking=Tracking("upstream", number))
                processed.append(number)
        return processed

    done = run_together([partial(process, recorder) for recorder in processors])
    assert sorted(chain.from_iterable(done)) == list(range(1, notifications + 1))
    assert topics(processors[0]) == [str(number) for number in range(1, notifications + 1)]
    # The position never moves backwards, either.
    with pytest.raises(IntegrityError):
        processors[0].insert_tracking(Tracking("upstream", 1))
    assert processors[0].max_tracking_id("upstream") == notifications


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_defect_02_notification_is_processed_by_one_of_two_processors(
    database: str, request: pytest.FixtureRequest, repeat: Callable[[int], range]
) -> None:
    """Wrong variant, on PostgreSQL: a recorder that reads the position, compares it, and then writes."""
    with Applications(request.getfixturevalue(database)) as apps:
        recorder = apps.recorder()
        check_each_notification_is_processed_once([recorder, apps.elsewhere(recorder)], len(repeat(50)))
        if database == "postgres_url":
            recorder = apps.recorder("Wrong")
            wrong = [twin(recorder, recorder_class=ReadsThenWrites) for _ in range(2)]
            with pytest.raises(AssertionError):
                check_each_notification_is_processed_once(wrong, 1)


# -- 3 --


class ReadsThenListens(SQLAlchemySubscription):
    """As published: the first page is read before listening starts."""

    def __next__(self) -> Notification:
        if self._waiter is None:
            self._read()
            self._waiter = self._recorder.wait_for_events()
            self._waiter.clear()
            if not self._notifications:
                self._waiter.sleep()
            self._leave = weakref.finalize(self, self._waiter.close)
        return super().__next__()


def check_no_wakeup_is_lost_while_reading(
    apps: Applications, subscription_class: type[SQLAlchemySubscription], seconds: float
) -> None:
    recorder = apps.recorder()
    writer = apps.elsewhere(recorder)
    read = recorder.select_notifications
    is_first = True

    def read_and_be_overtaken(*args: Any, **kwargs: Any) -> list[Notification]:
        nonlocal is_first
        notifications = read(*args, **kwargs)
        if is_first:
            is_first = False
            # In a user's transaction: the server notifies at the commit, and not later.
            with writer.datastore.session_maker() as session, session.begin():
                writer.insert_events(stored_events(topic="overtaking"), session=session)
        return notifications

    recorder.select_notifications = read_and_be_overtaken  # type: ignore[method-assign]
    subscription = subscription_class(recorder, gt=recorder.max_notification_id())
    with subscription, ThreadPoolExecutor(1) as threads:
        first = threads.submit(next, subscription, None)
        try:
            notification = first.result(seconds)
        except TimeoutError:
            notification = None
        subscription.stop()
    assert notification is not None
    assert notification.topic == "overtaking"


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_defect_03_subscription_receives_events_recorded_during_its_first_read(
    driver: str, postgres_server: Any, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant: a subscription that reads before it listens. Polling would hide it."""
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_LISTENING", 60.0)
    with Applications(postgres_server.url(postgres_database, driver)) as apps:
        check_no_wakeup_is_lost_while_reading(apps, SQLAlchemySubscription, 20)
        with pytest.raises(AssertionError):
            check_no_wakeup_is_lost_while_reading(apps, ReadsThenListens, 1)


# -- 4 --


def check_rollback_of_one_keeps_what_another_wrote(apps: Applications) -> None:
    mine, other = apps.recorder("Mine"), apps.recorder("Other")
    before = len(topics(other))
    with pytest.raises(ZeroDivisionError), mine.transaction() as session:  # noqa: PT012 (the block rolls back)
        mine.insert_events(stored_events())
        other.insert_events(stored_events())
        other.insert_tracking(Tracking("upstream", (other.max_tracking_id("upstream") or 0) + 1))
        assert other.datastore.current_session() is not session
        raise ZeroDivisionError
    assert topics(mine) == []
    assert len(topics(other)) == before + 1
    assert other.max_tracking_id("upstream") is not None


def test_defect_04_application_does_not_write_into_the_transaction_of_another(
    apps: Applications, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant: any open transaction of the context serves every application."""

    def in_context() -> dict[int, OpenTransaction]:
        return dict(transactions._transactions.get())  # noqa: SLF001 (the cause of the defect)

    left_by_others = in_context()  # by tests that went before, of what becomes of a transaction that is never ended

    def any_transaction(_: SQLAlchemyDatastore) -> OpenTransaction | None:
        return next((found for key, found in in_context().items() if key not in left_by_others), None)

    check_rollback_of_one_keeps_what_another_wrote(apps)
    monkeypatch.setattr("eventsourcing_sqlalchemy.datastore.current_transaction", any_transaction)
    with pytest.raises(AssertionError):
        check_rollback_of_one_keeps_what_another_wrote(apps)


# -- 5 --

VICTIM = "CREATE TABLE public.victim AS SELECT 1 AS id"
# Unquoted, the second one is a whole statement: SELECT max(id) FROM victim; DROP TABLE victim; -- ...
INJECTIONS = (
    '"; DROP TABLE public.victim; --',
    "victim; DROP TABLE public.victim; --",
    "'; DROP TABLE public.victim; --",
    'a"."b',
    "%s %(name)s :name ? $1",
)


def has_victim(apps: Applications) -> bool:
    engine = sa.create_engine(apps.url)
    try:
        return sa.inspect(engine).has_table("victim")
    finally:
        engine.dispose()


def use(recorder: SQLAlchemyProcessRecorder) -> None:
    """Run each statement that contains a table name."""
    recorder.max_notification_id()
    events = stored_events(2)
    recorder.insert_events(events, tracking=Tracking("upstream", 1))
    recorder.insert_tracking(Tracking("upstream", 2))
    with recorder.transaction():
        recorder.insert_events(stored_events(first_version=3), tracking=Tracking("upstream", 3))
    assert recorder.max_tracking_id("upstream") == 3
    assert recorder.select_events(events[0].originator_id, gt=1, lte=9, limit=9, desc=True) == events[1:]
    assert len(recorder.select_notifications(start=1, limit=9, stop=9, topics=["module:Class"])) == 3


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_defect_05_sql_in_a_name_is_not_executed(
    driver: str, postgres_server: Any, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant, where a driver accepts several statements: names in statements are not quoted."""
    with Applications(postgres_server.url(postgres_database, driver)) as apps:
        engine = sa.create_engine(apps.url)
        with engine.begin() as connection:
            connection.execute(sa.text(VICTIM))
        engine.dispose()
        for number, name in enumerate(INJECTIONS):
            for place, recorder in (
                (name, apps.recorder(place=name)),
                ("public", apps.recorder(table_prefix=name[:30])),
                ("public", apps.recorder(f"{number}{name[:30]}")),
            ):
                use(recorder)
                with recorder.datastore.engine.connect() as connection:
                    names = sa.inspect(connection).get_table_names(schema=place)
                assert recorder.events_table_name in names
                assert has_victim(apps)
        if driver == "psycopg2":
            monkeypatch.setattr("eventsourcing_sqlalchemy.naming.quote", lambda identifier: identifier)
            with suppress(Exception):
                use(apps.recorder(place=INJECTIONS[1]))
            assert not has_victim(apps)


# -- 6 --


def check_copied_context_gets_no_session(apps: Applications) -> None:
    recorder = apps.recorder()

    async def begin_and_leave_a_part_to_a_thread() -> None:
        with recorder.transaction() as session:
            recorder.insert_events(stored_events(topic="rolled back"))
            assert recorder.datastore.current_session() is session
            assert await asyncio.to_thread(recorder.datastore.current_session) is None
            assert await asyncio.to_thread(topics, recorder) == []
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(begin_and_leave_a_part_to_a_thread())


def test_defect_06_copied_context_does_not_use_the_session(apps: Applications, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong variant: a transaction belongs to every context that contains it."""
    check_copied_context_gets_no_session(apps)
    monkeypatch.setattr(OpenTransaction, "is_owned", lambda _: True)
    with pytest.raises(AssertionError):
        check_copied_context_gets_no_session(apps)

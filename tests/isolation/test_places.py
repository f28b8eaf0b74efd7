"""Applications with the same name in different schemas, prefixes and databases share only the engine."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError, Tracking
from sqlalchemy.orm import Session

from eventsourcing_sqlalchemy.naming import TableName
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder, SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres, fresh_database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import wait_until
from tests.support.followers import Follower

# (schema, prefix). Each pair would be one place if names were joined by a dot, unquoted, case-folded or normalized.
PLACES: list[tuple[str | None, str]] = [
    (None, ""),
    ("a", "b.c"),
    ("a.b", "c"),
    (None, "a."),
    ("a", ""),
    ("A", ""),
    ('a"', ""),
    ('a"."app_events', ""),
    ("'; DROP TABLE public.app_events; --", ""),
    ('"; DROP TABLE public.app_events; --', ""),
    ("a; DROP SCHEMA a CASCADE; --", ""),
    (None, "a; DROP TABLE app_events; --"),
    ("%s", "%(x)s :y ? $1"),
    ("\u00e9", ""),
    ("e\u0301", ""),
    ("a_", "b_"),
    ("a", "_b_"),
]


class Place:
    """An application called App in one place, with all kinds of recorders."""

    def __init__(self, apps: Applications, schema: str | None, prefix: str) -> None:
        settings: dict[str, Any] = {"table_prefix": prefix} | ({} if schema is None else {"schema": schema})
        factory = apps.factory("App", None, **settings)
        recorder = factory.process_recorder()
        assert isinstance(recorder, SQLAlchemyProcessRecorder)
        self.events = recorder
        snapshots = factory.aggregate_recorder("snapshots")
        assert isinstance(snapshots, SQLAlchemyAggregateRecorder)
        self.snapshots = snapshots


def check_places_share_nothing(places: list[Place]) -> None:
    """Write the same ids and versions in each place, and find only that place's events there."""
    originator_id = uuid4()
    for number, place in enumerate(places):
        marked = stored_events(2, originator_id, state=b"%d" % number, topic=str(number))
        place.events.insert_events(marked[:1], tracking=Tracking("upstream", number + 1))
        with place.events.transaction():
            place.events.insert_events(marked[1:])
        place.snapshots.insert_events(marked)
    for number, place in enumerate(places):
        assert topics(place.events) == [str(number)] * 2
        assert {event.topic for event in place.events.select_events(originator_id)} == {str(number)}
        assert {event.topic for event in place.snapshots.select_events(originator_id)} == {str(number)}
        assert place.events.max_tracking_id("upstream") == number + 1
        assert place.events.max_notification_id() == 2
        with place.events.transaction(commit=False) as session:
            record = place.events.events_record_cls
            assert {row.topic for row in session.scalars(sa.select(record))} == {str(number)}


def check_keys_differ(places: list[Place]) -> None:
    """Expect a separate lock and separate wake-ups for each table."""
    assert len({place.events.wakeup_key for place in places}) == len(places)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_places_on_postgresql_share_nothing(postgres_server: Postgres, postgres_database: str, driver: str) -> None:
    """Seen to fail against names that are not quoted, and against names that are joined by a dot."""
    with Applications(postgres_server.url(postgres_database, driver)) as apps:
        places = [Place(apps, schema, prefix) for schema, prefix in PLACES]
        check_places_share_nothing(places)
        check_keys_differ(places)


def test_places_on_sqlite_share_nothing(sqlite_url: str) -> None:
    with Applications(sqlite_url) as apps:
        prefixes = list(dict.fromkeys(prefix + (schema or "").replace("A", "B") for schema, prefix in PLACES))
        places = [Place(apps, None, prefix) for prefix in prefixes]
        check_places_share_nothing(places)
        check_keys_differ(places)


def test_databases_share_nothing(postgres_server: Postgres, postgres_database: str, sqlite_url: str) -> None:
    with fresh_database(postgres_server) as second:
        urls = [
            postgres_server.url(postgres_database),
            postgres_server.url(second),
            sqlite_url,
            "sqlite://",
            "sqlite://",
        ]
        applications = [Applications(url) for url in urls]
        check_places_share_nothing([Place(apps, None, "") for apps in applications])
        for apps in applications:
            apps.__exit__()


def test_prefix_that_differs_only_in_case_is_refused_on_sqlite(sqlite_url: str) -> None:
    """SQLite treats both names as one table."""
    with Applications(sqlite_url) as apps:
        apps.recorder(place="acme_").insert_events(stored_events())
        with pytest.raises(ProgrammingError, match="acme_app_events"):
            apps.recorder(place="Acme_")


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_index_of_a_renamed_table_is_noticed(database: str, request: pytest.FixtureRequest) -> None:
    """The index keeps its name, and a new table without it would record an event twice."""
    with Applications(request.getfixturevalue(database)) as apps:
        recorder = apps.recorder()
        with recorder.datastore.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE app_events RENAME TO moved_away"))
        with pytest.raises(ProgrammingError, match="unique index"):
            apps.recorder()


# -- wake-ups --


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make subscriptions rely on wake-ups alone."""
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_LISTENING", 60.0)
    monkeypatch.setattr("eventsourcing_sqlalchemy.notifications.wakeups.POLL_WHEN_NOT_LISTENING", 60.0)


def by_itself(recorder: SQLAlchemyProcessRecorder, topic: str) -> None:
    recorder.insert_events(stored_events(topic=topic))


def in_transaction(recorder: SQLAlchemyProcessRecorder, topic: str) -> None:
    with recorder.transaction():
        recorder.insert_events(stored_events(topic=topic))


def in_given_session(recorder: SQLAlchemyProcessRecorder, topic: str) -> None:
    with recorder.datastore.session_maker() as session, session.begin():
        recorder.insert_events(stored_events(topic=topic), session=session)


def in_bare_session(recorder: SQLAlchemyProcessRecorder, topic: str) -> None:
    with Session(recorder.datastore.engine) as session:
        recorder.insert_events(stored_events(topic=topic), session=session)
        session.commit()


# At the start, after the wake-up, and once more before it sleeps.
READS_FOR_ONE_EVENT = 3

WAYS = [by_itself, in_transaction, in_given_session, in_bare_session]


def check_no_other_is_woken(
    mine: SQLAlchemyProcessRecorder, other: SQLAlchemyProcessRecorder, write: Callable[[], None], writes: int
) -> None:
    """Write to the other application, wait for each event there, and count the reads of mine."""
    with Follower(mine) as follower, Follower(other) as other_follower:
        for number in range(1, writes + 1):
            write()
            other_follower.wait_for(*["other"] * number)
        mine.insert_events(stored_events(topic="mine"))
        follower.wait_for("mine")
        assert follower.reads <= READS_FOR_ONE_EVENT


def check_is_woken(mine: SQLAlchemyProcessRecorder, write: Callable[[], None]) -> None:
    """Write until mine was read more often than its own event explains."""
    with Follower(mine) as follower:

        def is_woken() -> bool:
            write()
            return follower.reads > READS_FOR_ONE_EVENT

        wait_until(is_woken, "mine is woken by writes of the other")


@pytest.mark.usefixtures("no_poll")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_wakeup_is_for_one_application(
    postgres_url: str,
    way: Callable[[SQLAlchemyProcessRecorder, str], None],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wrong variant: wake-ups are for a name, whatever the schema."""
    with Applications(postgres_url) as apps:

        def recorders(*schemas: str) -> list[SQLAlchemyProcessRecorder]:
            mine, other = (apps.recorder(place=schema) for schema in schemas)
            return [mine, other, other if place == "here" else apps.elsewhere(other)]

        mine, other, writer = recorders("mine", "other")
        check_no_other_is_woken(mine, other, lambda: way(writer, "other"), 5)
        monkeypatch.setattr(TableName, "key", property(lambda self: len(self.name)))
        mine, _, writer = recorders("mine too", "other too")
        check_is_woken(mine, lambda: way(writer, "other"))


@pytest.mark.usefixtures("no_poll")
def test_wakeup_is_for_one_application_on_sqlite(sqlite_url: str) -> None:
    with Applications(sqlite_url) as apps:
        mine, other = apps.recorder(place="mine"), apps.recorder(place="other")
        check_no_other_is_woken(mine, other, lambda: by_itself(other, "other"), 5)


@pytest.mark.usefixtures("no_poll")
def test_wakeup_is_for_one_database(postgres_server: Postgres, postgres_database: str) -> None:
    with (
        fresh_database(postgres_server) as second,
        Applications(postgres_server.url(second)) as others,
        Applications(postgres_server.url(postgres_database)) as apps,
    ):
        mine, other = apps.recorder(), others.recorder()
        check_no_other_is_woken(mine, other, lambda: by_itself(other, "other"), 5)


@pytest.fixture(params=["rolled back", "fails"])
def given_up(request: pytest.FixtureRequest) -> Callable[[SQLAlchemyProcessRecorder], None]:
    """Write in a transaction that does not commit."""
    versions = count(1)

    def roll_back(recorder: SQLAlchemyProcessRecorder) -> None:
        with pytest.raises(ZeroDivisionError), recorder.transaction():  # noqa: PT012 (the block rolls back)
            recorder.insert_events(stored_events())
            raise ZeroDivisionError

    def fail(recorder: SQLAlchemyProcessRecorder) -> None:
        with recorder.datastore.session_maker() as session:
            recorder.insert_events(stored_events(first_version=next(versions)), session=session)
            with pytest.raises(sa.exc.DBAPIError):
                session.execute(sa.text("SELECT * FROM missing"))
            session.rollback()

    chosen: dict[str, Callable[[SQLAlchemyProcessRecorder], None]] = {"rolled back": roll_back, "fails": fail}
    return chosen[request.param]


@pytest.mark.usefixtures("no_poll")
def test_transaction_without_commit_wakes_no_subscription(
    postgres_url: str, given_up: Callable[[SQLAlchemyProcessRecorder], None]
) -> None:
    with Applications(postgres_url) as apps:
        mine = apps.recorder()
        writers = [mine, apps.elsewhere(mine)]
        with Follower(mine) as follower:
            for writer in writers * 3:
                given_up(writer)
            mine.insert_events(stored_events(topic="mine"))
            follower.wait_for("mine")
            assert follower.reads <= 3

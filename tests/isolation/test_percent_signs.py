"""A percent sign in a name stays a percent sign, even where drivers would halve doubled ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import scoped_session, sessionmaker

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications, stored_events, topics, twin

# Too many for PostgreSQL's single statement.
LARGE = b"x" * (5 * 2**20)


@pytest.fixture(params=["psycopg2", "psycopg", "pg8000", "sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.url(request.getfixturevalue("postgres_database"), request.param)


@pytest.fixture
def apps(url: str) -> Iterator[Applications]:
    with Applications(url) as apps:
        yield apps


def recorders_in(apps: Applications, part: str, one: str, other: str) -> list[SQLAlchemyProcessRecorder]:
    if part == "name":
        return [apps.recorder(one), apps.recorder(other)]
    if part == "prefix":
        return [apps.recorder(table_prefix=one), apps.recorder(table_prefix=other)]
    return [apps.recorder(place=one), apps.recorder(place=other)]


@pytest.mark.parametrize("part", ["place", "prefix", "name"])
@pytest.mark.parametrize(("one", "other"), [("a%b", "a%%b"), ("a%sb", "a%%sb"), ("50%", "50%%")])
def test_places_that_differ_in_percent_signs_share_nothing_inside_transactions(
    apps: Applications, part: str, one: str, other: str
) -> None:
    single, double = recorders_in(apps, part, one, other)
    single.insert_events(stored_events(7, topic="single"))
    double.insert_events(stored_events(topic="double"))
    with double.transaction():
        assert double.max_notification_id() == 1
        double.insert_events(stored_events(topic="double", state=LARGE))
        assert topics(double) == ["double"] * 2
    with single.transaction():
        assert single.max_notification_id() == 7
        single.insert_events(stored_events(topic="single", state=LARGE))
    assert (topics(single), topics(double)) == (["single"] * 8, ["double"] * 2)


def test_scoped_session_creates_and_fills_tables_in_the_configured_place(apps: Applications, url: str) -> None:
    single, double = recorders_in(apps, "prefix" if url.startswith("sqlite") else "place", "a%b", "a%%b")
    with apps.factory(create_table="no").datastore.transaction() as session:
        events = f'"{double.schema_name}".' if double.schema_name else ""
        names = [double.events_table_name, double.tracking_table_name]
        for name in names:
            session.connection().exec_driver_sql(
                f'DROP TABLE {events}"{name}"', execution_options={"no_parameters": True}
            )
    engine = sa.create_engine(url)
    scoped = scoped_session(sessionmaker(bind=engine))
    recorder = twin(double, SQLAlchemyDatastore(session=scoped))
    recorder.create_table()
    recorder.insert_events(stored_events(topic="scoped"))
    assert recorder.max_notification_id() == 1
    scoped.commit()
    scoped.remove()
    engine.dispose()
    assert (topics(single), topics(double)) == ([], ["scoped"])

"""Sessions, engines and connections of an unsuitable driver are refused, and the error names the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import NotSupportedError, Tracking
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events, topics
from tests.support.places import Place

PERCENT: Final = "50%s_"
Work = Callable[[Any], object]


def works(recorder: SQLAlchemyProcessRecorder) -> list[Work]:
    """Return the ways to record in a given session."""
    return [
        lambda session: recorder.insert_events(stored_events(), session=session),
        lambda session: recorder.insert_events(stored_events(), session=session, tracking=Tracking("upstream", 1)),
        lambda session: recorder._insert_tracking(session, Tracking("upstream", 1)),  # noqa: SLF001 (views call it)
    ]


ASYNCHRONOUS: Final = [("psycopg2", "asyncpg"), ("psycopg", "psycopg"), ("file", "aiosqlite")]


@pytest.mark.parametrize(("database", "driver"), ASYNCHRONOUS)
def test_session_of_an_async_driver_is_refused(place_url: Callable[[Place], str], database: Any, driver: str) -> None:
    url = sa.make_url(place_url(Place(database=database)))

    async def run(recorder: SQLAlchemyProcessRecorder) -> None:
        engine = create_async_engine(url.set(drivername=f"{url.get_backend_name()}+{driver}"))
        for work in works(recorder):
            async with AsyncSession(engine) as session:
                with pytest.raises(NotSupportedError, match=f"the asynchronous .*{driver}"):
                    await session.run_sync(work)
                with pytest.raises(NotSupportedError, match=r"asyncio\.to_thread"):
                    work(session.sync_session)
                with pytest.raises(NotSupportedError, match=f"the asynchronous .*{driver}"):
                    work(session)
                assert not session.in_transaction()
            await asyncio.to_thread(recorder.insert_events, stored_events())  # as the message recommends
        await engine.dispose()

    with Applications(url.render_as_string(hide_password=False)) as apps:
        recorder = apps.recorder()
        asyncio.run(run(recorder))
        assert len(topics(recorder)) == len(works(recorder))


@pytest.mark.parametrize("theirs", ["psycopg2", "psycopg", "pg8000", "file"])
@pytest.mark.parametrize("ours", ["psycopg2", "psycopg", "pg8000"])
def test_session_of_another_driver_writes_to_the_same_tables_or_is_refused(
    place_url: Callable[[Place], str], ours: Any, theirs: Any
) -> None:
    """Drivers differ in how they treat a percent sign in a table name."""
    engine = sa.create_engine(place_url(Place(database=theirs)))
    with Applications(place_url(Place(database=ours)), table_prefix=PERCENT) as apps:
        recorder = apps.recorder()
        for work in works(recorder)[:2]:
            with Session(engine) as session:
                if theirs == ours or {theirs, ours} == {"psycopg2", "psycopg"}:
                    work(session)
                    session.commit()
                else:
                    with pytest.raises(NotSupportedError, match=f"uses .*{engine.driver}.*{ours}"):
                        work(session)
        is_served = theirs == ours or {theirs, ours} == {"psycopg2", "psycopg"}
        assert len(topics(recorder)) == (2 if is_served else 0)
    engine.dispose()


@pytest.mark.parametrize("theirs", ["psycopg2", "psycopg", "pg8000"])
@pytest.mark.parametrize("ours", ["psycopg2", "psycopg", "pg8000"])
def test_connection_of_another_driver_than_the_url_names_is_refused(
    place_url: Callable[[Place], str], ours: Any, theirs: Any
) -> None:
    engine = sa.create_engine(place_url(Place(database=theirs)))
    arguments, keywords = engine.dialect.create_connect_args(engine.url)
    url = f"postgresql+{ours}://"
    with closing(SQLAlchemyDatastore(url=url, creator=lambda: engine.dialect.connect(*arguments, **keywords))) as store:
        recorder = SQLAlchemyProcessRecorder(store)
        if ours == theirs:
            recorder.create_table()
        else:
            with pytest.raises(NotSupportedError, match=rf"a connection of {theirs}.*postgresql\+{theirs}://"):
                recorder.create_table()


def test_async_engine_is_refused(place_url: Callable[[Place], str]) -> None:
    engine: Any = create_async_engine(sa.make_url(place_url(Place(database="psycopg"))))
    for options in (
        {"engine": engine},
        {"engine": engine.sync_engine},
        {"session_maker": sessionmaker(bind=engine.sync_engine)},
        {"session": scoped_session(sessionmaker(bind=engine.sync_engine))},
    ):
        with pytest.raises(NotSupportedError, match="Asynchronous engines"):
            SQLAlchemyProcessRecorder(SQLAlchemyDatastore(**options))

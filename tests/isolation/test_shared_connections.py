"""Pools that hand one connection to several users at a time are refused before anything is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import NotSupportedError
from eventsourcing.utils import Environment
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import AssertionPool, Pool, QueuePool, SingletonThreadPool, StaticPool

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tests.applications import stored_events
from tests.engine_count import engines_in_use

URL = "sqlite://"


class Users:
    """What the user made; the topic names a function of this module, which looks here."""

    pool_class: ClassVar[type[Pool]]


def users_engine() -> sa.Engine:
    return sa.create_engine(URL, poolclass=Users.pool_class)


def by_url() -> SQLAlchemyDatastore:
    return SQLAlchemyDatastore(url=URL, poolclass=Users.pool_class)


def by_engine() -> SQLAlchemyDatastore:
    return SQLAlchemyDatastore(engine=users_engine())


def by_engine_topic() -> SQLAlchemyDatastore:
    return SQLAlchemyFactory(Environment("App", {"SQLALCHEMY_ENGINE_TOPIC": f"{__name__}:users_engine"})).datastore


def by_session_maker() -> SQLAlchemyDatastore:
    return SQLAlchemyDatastore(session_maker=sessionmaker(bind=users_engine()))


@pytest.mark.parametrize("construct", [by_url, by_engine, by_engine_topic, by_session_maker])
@pytest.mark.parametrize("pool_class", [StaticPool, SingletonThreadPool, AssertionPool])
def test_pool_that_shares_a_connection_is_refused(
    construct: Callable[[], SQLAlchemyDatastore], pool_class: type[Pool]
) -> None:
    Users.pool_class = pool_class
    with pytest.raises(NotSupportedError, match=rf"{pool_class.__name__}.*poolclass=QueuePool"):
        construct()
    assert engines_in_use() == []


def test_pool_that_the_error_recommends_serves() -> None:
    engine = sa.create_engine(URL, poolclass=QueuePool, pool_size=1, max_overflow=0)
    datastore = SQLAlchemyDatastore(engine=engine)
    recorder = SQLAlchemyApplicationRecorder(datastore)
    recorder.create_table()
    with recorder.transaction():
        recorder.insert_events(stored_events(2))
    assert recorder.max_notification_id() == 2
    datastore.close()
    engine.dispose()

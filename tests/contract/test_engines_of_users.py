"""Engines and connections that users create: SQLALCHEMY_ENGINE_TOPIC, SQLALCHEMY_CONNECTION_CREATOR_TOPIC."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pg8000.dbapi
import psycopg
import psycopg2
import pytest
import sqlalchemy as sa
from eventsourcing.persistence import NotSupportedError
from eventsourcing.utils import Environment
from sqlalchemy.engine import make_url

from eventsourcing_sqlalchemy.engines.engine import EngineSource
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from tenancy.testing.postgresql import Postgres, fresh_database
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.invoices import invoices, own_engine
from tests.support.engine_count import engines_in_use, forget_abandoned

MODULE = "eventsourcing_sqlalchemy"


class North(TrainingSchool):
    """One application."""


class South(TrainingSchool):
    """Another application."""


class Users:
    """The user's engines and connections; topics name functions of this module, which return them."""

    engine: ClassVar[Any]
    connections: ClassVar[dict[str, Callable[[], Any]]]
    calls: ClassVar[list[str]]


def users_engine() -> Any:
    return Users.engine


def connect_north() -> Any:
    Users.calls.append("north")
    return Users.connections["north"]()


def connect_south() -> Any:
    Users.calls.append("south")
    return Users.connections["south"]()


# -- engines --


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The user's engine."""
    with own_engine(database_url) as engine:
        Users.engine = engine
        yield engine


@pytest.fixture
def variables(engine: sa.Engine) -> dict[str, str]:  # noqa: ARG001 (found through the topic)
    """The environment of applications on the user's engine, without a URL."""
    return {
        "PERSISTENCE_MODULE": MODULE,
        "SQLALCHEMY_ENGINE_TOPIC": f"{__name__}:users_engine",
        "SQLALCHEMY_TABLE_PREFIX": "{application}_",
    }


def test_users_engine_is_used_and_stays_open(variables: dict[str, str], engine: sa.Engine) -> None:
    disposed = []
    sa.event.listen(engine, "engine_disposed", lambda _: disposed.append(True))
    with North(env=variables) as north, South(env=variables) as south:
        assert len(engines_in_use()) == 1
        assert north.recorder.datastore.engine is engine
        assert south.recorder.datastore.engine is engine
        north.register("Fido")
        south.register("Rex")
        assert (north.names(), south.names()) == (["Fido"], ["Rex"])
    assert disposed == []
    assert engines_in_use() == []
    assert invoices(engine) == []


def test_users_engine_keeps_its_transactions(variables: dict[str, str], engine: sa.Engine) -> None:
    """Calls of the package autocommit; the user's later statements on the same connections must not."""
    with North(env=variables) as north:
        north.register("Fido")
        insert = sa.text("INSERT INTO invoice (number) VALUES (1)")
        with engine.connect() as connection:
            connection.execute(insert)
            with pytest.raises(sa.exc.IntegrityError):
                connection.execute(insert)
        with engine.connect() as connection:
            connection.execute(insert)
            connection.rollback()
        assert invoices(engine) == []
        assert north.names() == ["Fido"]


@pytest.mark.parametrize("database_url", ["file"], indirect=True)
def test_engine_topic_must_return_an_engine(variables: dict[str, str]) -> None:
    Users.engine = "postgresql://"
    with pytest.raises(SettingsError, match=r"SQLALCHEMY_ENGINE_TOPIC.*users_engine.*Engine, not str"):
        SQLAlchemyFactory(Environment("North", variables))


@pytest.mark.parametrize(
    "variable", ["SQLALCHEMY_ENGINE_TOPIC", "SQLALCHEMY_CONNECTION_CREATOR_TOPIC", "SQLALCHEMY_SCOPED_SESSION_TOPIC"]
)
@pytest.mark.parametrize("topic", ["no_such_module:name", f"{__name__}:no_such_name", f"{__name__}:MODULE"])
def test_unresolvable_topic_is_named(variable: str, topic: str) -> None:
    env = Environment("North", {"SQLALCHEMY_URL": "sqlite://", f"NORTH_{variable}": topic})
    with pytest.raises(SettingsError, match="North") as raised:
        SQLAlchemyFactory(env)
    assert variable in str(raised.value)
    assert topic in str(raised.value)


# -- creators --


def connect_with(driver: str, url: str) -> Callable[[], Any]:
    """Return a creator, as users write it, for a database."""
    if driver == "file":
        return lambda: sqlite3.connect(make_url(url).database or "", check_same_thread=False)
    arguments = make_url(url).translate_connect_args(username="user")
    if driver == "pg8000":
        return lambda: pg8000.dbapi.connect(**arguments)
    arguments["dbname"] = arguments.pop("database")
    return (lambda: psycopg2.connect(**arguments)) if driver == "psycopg2" else lambda: psycopg.connect(**arguments)


@pytest.fixture(params=["file", "psycopg2", "psycopg", "pg8000"])
def creators(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """One URL for two databases, with two creators."""
    driver: str = request.param
    Users.calls = []
    if driver == "file":
        urls = [f"sqlite:///{tmp_path / 'north.db'}", f"sqlite:///{tmp_path / 'south.db'}"]
        Users.connections = {"north": connect_with(driver, urls[0]), "south": connect_with(driver, urls[1])}
        yield f"sqlite:///{tmp_path / 'not-there.db'}"
        return
    server: Postgres = request.getfixturevalue("empty_database")
    with fresh_database(server) as second:
        urls = [server.url(request.getfixturevalue("contract_database")), server.url(second)]
        Users.connections = {"north": connect_with(driver, urls[0]), "south": connect_with(driver, urls[1])}
        yield f"postgresql+{driver}://"


def use_two_databases(url: str) -> None:
    env = {"PERSISTENCE_MODULE": MODULE, "SQLALCHEMY_URL": url}
    in_north = {**env, "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": f"{__name__}:connect_north"}
    in_south = {**env, "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": f"{__name__}:connect_south"}
    # The same application, so its tables have the same names in both databases.
    with North(env=in_north) as north, North(env=in_south) as south:
        north.register("Fido")
        south.register("Rex")
        south.register("Bello")
        assert (north.names(), south.names()) == (["Fido"], ["Rex", "Bello"])
        assert set(Users.calls) == {"north", "south"}
        with North(env=in_north) as again:
            assert again.names() == ["Fido"]
            assert len(engines_in_use()) == 2
        with north.recorder.transaction():
            north.register("Struppi")
        assert (north.names(), south.names()) == (["Fido", "Struppi"], ["Rex", "Bello"])
    assert engines_in_use() == []


def test_two_creators_with_one_url_are_two_databases(creators: str) -> None:
    use_two_databases(creators)


@pytest.mark.parametrize("creators", ["psycopg2"], indirect=True)
def test_creators_are_distinguished(creators: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that the test above can fail: engines identified by their URL alone."""
    monkeypatch.setattr(EngineSource, "key", lambda source: source.url)
    with pytest.raises(AssertionError):
        use_two_databases(creators)
    forget_abandoned()


def test_creator_of_connections_needs_no_url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is taken from the connections."""
    url = make_url(postgres_url)
    monkeypatch.setattr(
        sys.modules[__name__],
        "connect_without_url",
        lambda: psycopg2.connect(host=url.host, port=url.port, user=url.username, dbname=url.database),
        raising=False,
    )
    env = {"SQLALCHEMY_CONNECTION_CREATOR_TOPIC": f"{__name__}:connect_without_url"}
    factory = SQLAlchemyFactory(Environment("School", env))
    assert factory.application_recorder().max_notification_id() is None
    assert factory.datastore.engine.dialect.driver == "psycopg2"
    factory.close()


def test_creator_of_unknown_connections_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "connect_to_sqlite", lambda: sqlite3.connect(":memory:"), raising=False)
    env = {"SQLALCHEMY_CONNECTION_CREATOR_TOPIC": f"{__name__}:connect_to_sqlite"}
    with pytest.raises(NotSupportedError, match="'sqlite3' are not supported without a URL"):
        SQLAlchemyFactory(Environment("School", env))

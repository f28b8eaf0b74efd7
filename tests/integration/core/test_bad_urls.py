"""URLs that are missing or malformed, or that name an unsupported or unreachable database."""

from __future__ import annotations

import gc
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import (
    DatabaseError,
    NotSupportedError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
)
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from tenancy.testing.local_server import free_port
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events

SECRET = "hunter2"  # noqa: S105 (must not be shown)


def factory(**variables: str) -> SQLAlchemyFactory:
    return SQLAlchemyFactory(Environment("Shop", variables))


def everything_printed(error: BaseException) -> str:
    """Return everything that may be printed of an error: the traceback, and each error of the chain with its
    attributes.
    """
    texts = ["".join(traceback.format_exception(error))]
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None:
            texts += [str(link), repr(link), repr(link.args)]
            chain += [link.__cause__, link.__context__]
    return "\n".join(texts)


# -- no URL --


@pytest.mark.parametrize("variables", [{}, {"SQLALCHEMY_SCHEMA": "shop"}])
def test_missing_url_is_an_error_with_a_remedy(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"SQLALCHEMY_URL is not set \(application 'Shop'\)") as raised:
        factory(**variables)
    assert "postgresql://" in str(raised.value)
    assert raised.value.variable == "SQLALCHEMY_URL"
    assert isinstance(raised.value, EnvironmentError)


@pytest.mark.parametrize("variable", ["SQLALCHEMY_URL", "SHOP_SQLALCHEMY_URL"])
@pytest.mark.parametrize("value", ["", "  ", "\n"])
def test_empty_url_is_an_error_that_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} is empty") as raised:
        factory(**{variable: value})
    assert raised.value.variable == variable


# -- a malformed URL --


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"postgresql:/app:{SECRET}@localhost/shop",
        f"postgresql//app:{SECRET}@localhost/shop",
        f"postgresql://app:{SECRET}@localhost:port/shop",
        f"postgresql://app:{SECRET}@localhost:{SECRET}/shop",
        f"postgresql://app:x:{SECRET}@localhost:54 32/shop",
        f"://app:{SECRET}@localhost/shop",
        f" - postgresql://app:{SECRET}@localhost/shop",
        f"host=localhost password={SECRET}",
    ],
)
def test_malformed_url_is_an_error_without_the_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^SHOP_SQLALCHEMY_URL ") as raised:
        factory(SHOP_SQLALCHEMY_URL=url)
    assert SECRET not in everything_printed(raised.value)
    assert raised.value.variable == "SHOP_SQLALCHEMY_URL"


# -- an unsupported database or driver --


@pytest.mark.parametrize(
    "drivername",
    [
        "postgresql+nosuch",
        "postgresql+asyncpg",
        "sqlite+aiosqlite",
        "mysql",
        "mysql+pymysql",
        "mariadb",
        "mssql+pyodbc",
        "oracle",
        "oracle+oracledb",
        "cockroachdb",
        "nosuch",
    ],
)
def test_other_databases_and_drivers_are_refused_and_supported_ones_are_named(drivername: str) -> None:
    with pytest.raises(SettingsError, match="is not supported") as raised:
        factory(SQLALCHEMY_URL=f"{drivername}://app:{SECRET}@localhost/shop")
    message = str(raised.value)
    assert f"SQLALCHEMY_URL names '{drivername}'" in message
    for works in ("postgresql", "psycopg2", "psycopg", "pg8000", "sqlite"):
        assert works in message
    assert SECRET not in everything_printed(raised.value)


def mysql_engine() -> sa.Engine:
    """The engine that SQLALCHEMY_ENGINE_TOPIC names, of another database."""
    driver: Any = ModuleType("pymysql")
    driver.paramstyle = "pyformat"
    driver.__version__ = "1.0.0"
    driver.version_info = (1, 0, 0)
    return sa.create_engine("mysql+pymysql://", module=driver)


def test_engine_of_another_database_is_refused_and_supported_ones_are_named() -> None:
    with pytest.raises(NotSupportedError, match=r"mysql\+pymysql.*is not supported.*postgresql.*sqlite"):
        factory(SQLALCHEMY_ENGINE_TOPIC=f"{__name__}:mysql_engine")


@pytest.mark.parametrize(
    ("driver", "remedy"),
    [
        ("psycopg2", "pip install psycopg2-binary"),
        ("psycopg", "pip install 'eventsourcing-sqlalchemy[psycopg]'"),
        ("pg8000", "pip install pg8000"),
    ],
)
def test_missing_driver_is_an_error_that_names_the_package_to_install(
    driver: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(SettingsError) as raised:
        factory(SQLALCHEMY_URL=f"postgresql+{driver}://app:{SECRET}@localhost/shop")
    assert f"The driver '{driver}'" in str(raised.value)
    assert "is not installed" in str(raised.value)
    assert remedy in str(raised.value)
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)
    assert SECRET not in everything_printed(raised.value)


# -- an unreachable database --


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield the port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def sockets_of_pg8000() -> Iterator[None]:
    """Collect the sockets that pg8000 does not close when it cannot log in."""
    yield
    gc.collect()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
@pytest.mark.parametrize("where", ["closed port", "unknown host", "impossible port"])
def test_unreachable_server_is_an_operational_error_without_the_password(driver: str, where: str) -> None:
    address = {
        "closed port": f"127.0.0.1:{free_port()}",
        "unknown host": "nosuchhost.invalid",
        "impossible port": "127.0.0.1:99999",
    }[where]
    with Applications(f"postgresql+{driver}://app:{SECRET}@{address}/shop") as applications:
        shop = applications.factory("Shop")
        for call in (shop.application_recorder, shop.process_recorder, shop.tracking_recorder):
            with pytest.raises(OperationalError, match=f"Cannot connect to postgresql\\+{driver}://app:") as raised:
                call()
            assert raised.value.__cause__ is not None
            assert SECRET not in everything_printed(raised.value)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("sockets_of_pg8000")
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_silent_server_is_an_operational_error(driver: str) -> None:
    # Without a limit, this would never end.
    with silent_server() as port:
        url = f"postgresql+{driver}://app:{SECRET}@127.0.0.1:{port}/shop"
        with Applications(url, connect_timeout=0.5) as applications:
            with pytest.raises(OperationalError, match="Cannot connect to") as raised:
                applications.recorder("Shop")
            assert SECRET not in everything_printed(raised.value)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_connect_timeout_does_not_limit_statements(database: Database, driver: str, place: str) -> None:
    with Applications(database.url(driver), connect_timeout=1) as applications:
        recorder = applications.recorder("Shop", place)
        with recorder.transaction() as session:
            session.execute(sa.text("SELECT pg_sleep(1.2)"))
        assert recorder.insert_events(stored_events()) == [1]


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("sockets_of_pg8000")
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
@pytest.mark.parametrize("what", ["database", "role"])
def test_unknown_database_or_role_is_an_error_that_names_it(database: Database, driver: str, what: str) -> None:
    url = sa.make_url(database.url(driver)).set(password=SECRET)
    url = url.set(database="nosuch") if what == "database" else url.set(username="nosuch")
    with Applications(url.render_as_string(hide_password=False)) as applications:
        with pytest.raises((OperationalError, ProgrammingError), match="nosuch") as raised:
            applications.recorder("Shop")
        assert raised.value.__cause__ is not None
        assert SECRET not in everything_printed(raised.value)


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _no_database(path: Path) -> Path:
    path.write_bytes(b"This is a letter, not a database. " * 100)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path / "missing" / "shop.db", "unable to open database file"),
        (_directory, "unable to open database file"),
        (_no_database, "file is not a database"),
    ],
)
def test_file_that_cannot_be_a_database_is_an_error(make: Callable[[Path], Path], says: str, tmp_path: Path) -> None:
    with Applications(f"sqlite:///{make(tmp_path / 'shop')}") as applications:
        with pytest.raises(PersistenceError, match=says) as raised:
            applications.recorder("Shop")
        assert isinstance(raised.value, DatabaseError)
        assert raised.value.__cause__ is not None


# -- a closed application --


def test_closed_application_names_itself_in_the_error(url: str, place: str) -> None:
    with Applications(url) as applications:
        shop = applications.factory("Shop", place)
        recorder: Any = shop.process_recorder()
        recorder.insert_events(stored_events())
        shop.close()
        shop.close()
        calls: list[Callable[[], object]] = [
            lambda: recorder.insert_events(stored_events()),
            lambda: recorder.select_events(stored_events()[0].originator_id),
            lambda: recorder.select_notifications(1, 10),
            lambda: recorder.max_tracking_id("upstream"),
            lambda: recorder.transaction().__enter__(),
            lambda: next(recorder.subscribe()),
            recorder.create_table,
        ]
        for call in calls:
            with pytest.raises(PersistenceError, match="Application 'Shop' is closed"):
                call()

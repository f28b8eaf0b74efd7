"""Difficult names of schemas, prefixes and applications are used unchanged, or refused."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import NotSupportedError, ProgrammingError, Tracking
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder, SQLAlchemyProcessRecorder
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events

# A unique text replaces the tilde.
NAMES = [
    "Capitals~",
    "with-dash~",
    " with space ~ ",
    "new\nline\t~",
    "dots.in.it~",
    'double"quote""~"',
    "single'quote''~'",
    "percent%s%%(x)s%~",
    "colon:name::x~",
    "question?~?",
    "back\\slash\\~\\",
    "$1$$dollar~",
    "semi;colon--~",
    "größe-数-🐘~",
    "/*~*/",
    "select~",
    'x"; DROP TABLE victim; --~',
    "x'); DROP TABLE victim; --~",
]
BRACES = ["{~}", "{{~}}", "a}~{b", "{application}~"]


def unique(template: str) -> str:
    return template.replace("~", secrets.token_hex(3))


@pytest.fixture
def victim(url: str) -> Iterator[sa.Engine]:
    """An engine on a database with a table that some of the names would drop."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS victim (a int)"))
    yield engine
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM victim"))
    engine.dispose()


def exercise(factory: SQLAlchemyFactory) -> SQLAlchemyProcessRecorder:
    """Write and read in every way."""
    recorder = factory.process_recorder()
    snapshots = factory.aggregate_recorder("snapshots")
    assert isinstance(recorder, SQLAlchemyProcessRecorder)
    assert isinstance(snapshots, SQLAlchemyAggregateRecorder)
    first, second = stored_events(2), stored_events(2)
    originator_id = first[0].originator_id
    assert recorder.insert_events(first, tracking=Tracking("upstream", 1)) == [1, 2]
    recorder.insert_tracking(Tracking("upstream", 2))
    snapshots.insert_events(first[1:])
    with recorder.transaction() as session:
        assert recorder.insert_events(second, tracking=Tracking("upstream", 3)) == [3, 4]
        snapshots.insert_events(second[1:])
        assert recorder.max_notification_id() == 4
        assert recorder.max_tracking_id("upstream") == 3
        assert len(recorder.select_events(originator_id, gt=1, lte=2, desc=True, limit=1)) == 1
        assert session.query(recorder.events_record_cls).count() == 4
        assert session.query(recorder.tracking_record_cls).one().notification_id == 3
        assert session.scalar(sa.select(sa.func.count()).select_from(snapshots.events_table)) == 2
    assert recorder.max_notification_id() == 4
    assert recorder.max_tracking_id("upstream") == 3
    assert recorder.select_events(originator_id) == first
    assert snapshots.select_events(originator_id) == first[1:]
    assert len(recorder.select_notifications(2, 10, 3, topics=[first[0].topic])) == 2
    with recorder.subscribe(gt=3) as subscription:
        assert next(subscription).id == 4
    # The tables exist now, and are recognized.
    recorder.create_table()
    return recorder


def tables(engine: sa.Engine) -> set[tuple[str | None, str]]:
    """Return schema and name of all tables in the catalog."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            return {(None, row[0]) for row in connection.execute(sa.text("SELECT name FROM sqlite_master"))}
        rows = connection.execute(sa.text("SELECT schemaname, tablename FROM pg_catalog.pg_tables"))
        return {(schema, table) for schema, table in rows}


def in_schema(url: str, schema: str | None) -> str | None:
    return None if url.startswith("sqlite") else schema


# The prefix starts a table's name, before the application's name.
@pytest.mark.parametrize(
    "template", ["Capitals-and space~", "quotes\"'~", "percent%s%~", "größe-数~", 'x"; DROP TABLE victim; --~']
)
def test_prefix_is_exactly_the_given_one(url: str, victim: sa.Engine, template: str) -> None:
    name = unique(template)
    with Applications(url, table_prefix=name) as applications:
        exercise(applications.factory("Shop"))
    schema = in_schema(url, "public")
    assert {(schema, f"{name}shop_{purpose}") for purpose in ("events", "snapshots", "tracking")} <= tables(victim)


@pytest.mark.parametrize("template", NAMES + BRACES)
def test_schema_and_application_have_exactly_the_given_names(url: str, victim: sa.Engine, template: str) -> None:
    name = unique(template)
    # A brace in a schema is part of a template.
    schema = in_schema(url, f"{name} too" if template in NAMES else f"too_{name.lower()}")
    settings = {} if schema is None else {"schema": schema if template in NAMES else "too_{application}"}
    with Applications(url, **settings) as applications:
        exercise(applications.factory(name))
    assert {(schema, f"{name.lower()}_{purpose}") for purpose in ("events", "snapshots", "tracking")} <= tables(victim)


@pytest.mark.parametrize("variable", ["SQLALCHEMY_SCHEMA", "SQLALCHEMY_TABLE_PREFIX"])
@pytest.mark.parametrize(
    "value", ["{", "}", "{}", "{name}", "{Application}", "{{application}}", "{application", "a{0}"]
)
def test_other_braces_are_an_error(sqlite_url: str, variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable}=.*the only placeholder is {{application}}") as raised:
        SQLAlchemyFactory(Environment("Shop", {"SQLALCHEMY_URL": sqlite_url, variable: value}))
    assert repr(value) in str(raised.value)


# -- length --

TWO_BYTES = "ü"


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
@pytest.mark.parametrize("letter", ["x", TWO_BYTES])
def test_schema_of_63_bytes_works_and_of_64_is_refused(database: Database, driver: str, letter: str) -> None:
    start = secrets.token_hex(4)[:7]
    longest = start + letter * ((63 - len(start)) // len(letter.encode()))
    assert len(longest.encode()) == 63
    engine = sa.create_engine(database.url())
    with Applications(database.url(driver)) as applications:
        exercise(applications.factory("Shop", schema=longest))
        assert (longest, "shop_events") in tables(engine)
        with pytest.raises(ProgrammingError, match=r"too long.*64 bytes.*the limit is 63"):
            applications.factory("Shop", schema=longest + "y").process_recorder()
    # The server would have truncated it, and found the other schema.
    assert not [schema for schema, _ in tables(engine) if schema == longest + "y"]
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
@pytest.mark.parametrize("letter", ["x", TWO_BYTES])
@pytest.mark.parametrize("is_prefix", [False, True])
def test_table_whose_index_has_63_bytes_works_and_64_is_refused(
    database: Database, driver: str, letter: str, place: str, is_prefix: bool
) -> None:
    rest = len("_events_aggregate_idx") + (len("shop") if is_prefix else 0)
    size = 63 - rest
    longest = "y" * (size % 2) + letter * (size // len(letter.encode()))
    longest += "y" * (size - len(longest.encode()))
    with Applications(database.url(driver), schema=place) as applications:

        def factory(name: str) -> SQLAlchemyFactory:
            return applications.factory("Shop", table_prefix=name) if is_prefix else applications.factory(name)

        exercise(factory(longest))
        with pytest.raises(ProgrammingError, match=r"too long.*64 bytes.*the limit is 63") as raised:
            factory(longest + "z").process_recorder()
        assert "_aggregate_idx" in str(raised.value)
    count = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = :schema"
    assert database.scalar(f"{count} AND relkind = 'r'", schema=place) == 3


def test_sqlite_accepts_names_of_any_length(sqlite_url: str) -> None:
    with Applications(sqlite_url, table_prefix="p" * 300) as applications:
        exercise(applications.factory("S" * 300))


# -- invalid names --


@pytest.mark.parametrize("name", ["nul\0", "surrogate\udc80"])
@pytest.mark.parametrize("where", ["schema", "table_prefix", "name"])
def test_names_that_no_database_accepts_are_refused(url: str, name: str, where: str) -> None:
    with Applications(url) as applications:
        settings: Any = {} if where == "name" else {where: name}
        # On SQLite, every schema is refused.
        with pytest.raises((ProgrammingError, NotSupportedError), match=r"NUL character|not valid Unicode|no schemas"):
            applications.factory(name if where == "name" else "Shop", **settings).process_recorder()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_schema_that_the_database_reserves_is_refused(database: Database, driver: str) -> None:
    with Applications(database.url(driver), schema="pg_mine") as applications:
        with pytest.raises(ProgrammingError, match="pg_mine") as raised:
            applications.recorder("Shop")
        assert raised.value.__cause__ is not None


def test_empty_schema_and_prefix_mean_none(url: str) -> None:
    variables = {"SQLALCHEMY_URL": url, "SQLALCHEMY_SCHEMA": "nowhere", "SHOP_SQLALCHEMY_SCHEMA": ""}
    variables |= {"SQLALCHEMY_TABLE_PREFIX": "nothing", "SHOP_SQLALCHEMY_TABLE_PREFIX": ""}
    factory = SQLAlchemyFactory(Environment("Shop", variables))
    assert (factory.settings.schema, factory.settings.table_prefix) == (None, "")
    factory.close()


# -- colliding names --


@pytest.mark.parametrize(
    ("one", "other"), [("acme-school", "acme_school"), ("Acme", "ACME"), ("acme school", "acme.school"), ("ß", "SS")]
)
def test_applications_with_the_same_variables_are_refused(sqlite_url: str, one: str, other: str) -> None:
    first = SQLAlchemyFactory(Environment(one, {"SQLALCHEMY_URL": sqlite_url}))
    with pytest.raises(SettingsError, match="would both read variables") as raised:
        SQLAlchemyFactory(Environment(other, {"SQLALCHEMY_URL": sqlite_url}))
    assert repr(one) in str(raised.value)
    assert repr(other) in str(raised.value)
    # The same application does not collide with itself; after it is closed, its name is free.
    SQLAlchemyFactory(Environment(one, {"SQLALCHEMY_URL": sqlite_url})).close()
    first.close()
    del first, raised
    gc.collect()
    SQLAlchemyFactory(Environment(other, {"SQLALCHEMY_URL": sqlite_url})).close()


def test_parts_that_join_to_the_same_text_are_different_tables(database: Database) -> None:
    place = f"a{secrets.token_hex(3)}"
    with Applications(database.url()) as applications:
        one = applications.recorder("Shop", f"{place}.b", table_prefix="c.")
        other = applications.recorder("Shop", place, table_prefix="b.c.")
        assert one.wakeup_key != other.wakeup_key
        one.insert_events(stored_events(topic="one"))
        assert other.select_notifications(1, 10) == []

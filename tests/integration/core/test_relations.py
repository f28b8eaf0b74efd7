"""The relations in a schema, or with a prefix, from the catalog."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from tests.support.applications import Applications

SCRIPT = """
CREATE SCHEMA "a_%";
CREATE TABLE "a_%"."t%" (id serial PRIMARY KEY, text text);
CREATE TABLE "a_%".parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE "a_%".part PARTITION OF "a_%".parts FOR VALUES FROM (1) TO (2);
CREATE VIEW "a_%".seen AS SELECT 1 AS a;
CREATE MATERIALIZED VIEW "a_%".kept AS SELECT 1 AS a;
CREATE SEQUENCE "a_%".numbers;
CREATE TYPE "a_%".composite AS (a int);
CREATE SCHEMA "aX%";
CREATE TABLE "aX%"."t%" (id int);
CREATE TABLE "aX%"."a_1" (id int);
CREATE TABLE "aX%"."ab1" (id int);
CREATE TABLE "aX%"."a`1" (id int);
"""

EVERYTHING = {
    ("table", "t%"),
    ("table", "parts"),
    ("view", "seen"),
    ("materialized view", "kept"),
    ("sequence", "numbers"),
}


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_relations_of_postgresql(postgres_url: str, driver: str) -> None:
    """Partitions and columns' sequences belong to their tables, and a type has no rows."""
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.connection.cursor().execute(SCRIPT)
    engine.dispose()
    datastore = SQLAlchemyDatastore(url=sa.make_url(postgres_url).set(drivername=f"postgresql+{driver}"))
    dialect = datastore.dialect
    assert sorted(datastore.run(lambda executor: dialect.schemas(executor, "a_"))) == ["a_%"]
    assert set(datastore.run(lambda executor: dialect.relations(executor, "a_%", ""))) == EVERYTHING
    assert datastore.run(lambda executor: dialect.relations(executor, "a_%", "t%")) == [("table", "t%")]
    assert datastore.run(lambda executor: dialect.relations(executor, "aX%", "a_")) == [("table", "a_1")]
    assert datastore.run(lambda executor: dialect.relations(executor, "nowhere", "")) == []
    ids = datastore.run(lambda executor: dialect.relation_ids(executor, "a_%", ""))
    assert set(ids) == {name for _, name in EVERYTHING}
    assert not any(each.may_be_ours for each in ids.values())
    assert datastore.run(lambda executor: dialect.relation_ids(executor, "a_%", "t")) == {"t%": ids["t%"]}
    datastore.close()


def test_relations_of_sqlite(sqlite_url: str) -> None:
    with Applications(sqlite_url) as apps:
        apps.recorder(place="a_")
        datastore = apps.recorder(place="ab").datastore
        with datastore.get_connection() as connection:
            connection.exec_driver_sql("CREATE VIEW a_seen AS SELECT 1")
            connection.commit()
        dialect = datastore.dialect
        found = set(datastore.run(lambda executor: dialect.relations(executor, None, "a_")))
        assert set(datastore.run(lambda executor: dialect.relation_ids(executor, None, "a_"))) == {
            name for _, name in found
        }
        assert found == {("view", "a_seen"), ("table", "a_app_events"), ("table", "a_app_tracking")}
        everything = {name for _, name in datastore.run(lambda executor: dialect.relations(executor, None, ""))}
        assert everything == {name for _, name in found} | {"abapp_events", "abapp_tracking"}
        assert datastore.run(lambda executor: dialect.schemas(executor, "")) == []

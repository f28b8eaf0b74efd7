"""A schema that exists inside one transaction, to create tables in and look at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Final
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from eventsourcing_sqlalchemy.naming import quote

__all__ = ["scratch_schema"]

_TRANSACTION: Final = {"isolation_level": "READ COMMITTED"}


@contextmanager
def scratch_schema(engine: Engine) -> Iterator[tuple[Connection, str]]:
    """Yield a connection, and the name of a new schema; the transaction is rolled back at the end."""
    schema = f"scratch_{uuid4().hex}"
    with engine.connect():
        pass  # SQLAlchemy reads the server's version at the first connection
    # Reflection takes the default schema from the dialect, not from the search path.
    dialect = copy(engine.dialect)
    dialect.default_schema_name = schema
    with Engine(engine.pool, dialect, engine.url, hide_parameters=True).connect() as plain:
        connection = plain.execution_options(**_TRANSACTION)
        transaction = connection.begin()
        try:
            connection.exec_driver_sql(f"CREATE SCHEMA {quote(schema)}")
            connection.execute(
                sa.select(sa.func.set_config(sa.literal("search_path"), sa.literal(quote(schema)), sa.true()))
            )
            yield connection, schema
        finally:
            transaction.rollback()

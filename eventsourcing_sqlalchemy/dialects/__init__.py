"""What differs between databases, one module for each; no other part of the package compares their names."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from eventsourcing.persistence import NotSupportedError
from sqlalchemy.engine import URL

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.postgresql.dialect import PostgreSQLDialect
from eventsourcing_sqlalchemy.dialects.sqlite.dialect import SQLiteDialect

__all__ = ["SUPPORTED", "dialect_for", "dialect_of", "supported_text", "url_of"]

SUPPORTED: Final[dict[str, type[Dialect]]] = {cls.name: cls for cls in (PostgreSQLDialect, SQLiteDialect)}
"""The databases that work, as SQLAlchemy names them."""


def supported_text() -> str:
    """Return the databases and drivers that work, for messages."""
    return ", ".join(f"{name} ({', '.join(dialect.drivers)})" for name, dialect in SUPPORTED.items())


def url_of(connection: Any) -> URL:
    """Return a URL that names the database and the driver of a DBAPI connection to a server, and nothing else.

    Raises NotSupportedError for a connection of any other driver.
    """
    driver = type(connection).__module__.partition(".")[0]
    for name, dialect in SUPPORTED.items():
        if dialect.is_server and driver in dialect.drivers:
            return URL.create(f"{name}+{driver}")
    msg = f"Connections of {driver!r} do not work here, or need a URL that names them. These do: {supported_text()}."
    raise NotSupportedError(msg)


def dialect_for(name: str, driver: str) -> Dialect:
    """Return a new dialect for SQLAlchemy's names of a database and a driver; raises NotSupportedError for others."""
    dialect = SUPPORTED.get(name)
    if dialect is None or driver not in dialect.drivers:
        msg = f"'{name}+{driver}' does not work here. These do: {supported_text()}."
        raise NotSupportedError(msg)
    return dialect(driver)


def dialect_of(theirs: sa.Dialect) -> Dialect:
    """Return a new dialect for that of an engine; raises NotSupportedError for one that does not work."""
    if theirs.is_async:
        msg = (
            f"An asynchronous engine ('{theirs.name}+{theirs.driver}') does not work here. Make one with "
            f"create_engine(), for one of these: {supported_text()}."
        )
        raise NotSupportedError(msg)
    return dialect_for(theirs.name, theirs.driver)

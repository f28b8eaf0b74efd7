"""Database dialects, one folder each. No other part of this package compares database names."""

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
"""Supported databases by SQLAlchemy's name."""


def supported_text() -> str:
    """Return the supported databases and drivers, for messages."""
    return ", ".join(f"{name} ({', '.join(dialect.drivers)})" for name, dialect in SUPPORTED.items())


def url_of(connection: Any) -> URL:
    """Return a URL with only the database and driver of a DBAPI connection to a server.

    Raises NotSupportedError for any other driver.
    """
    driver = type(connection).__module__.partition(".")[0]
    for name, dialect in SUPPORTED.items():
        if dialect.is_server and driver in dialect.drivers:
            return URL.create(f"{name}+{driver}")
    msg = f"Connections of driver {driver!r} are not supported without a URL. Use one of: {supported_text()}."
    raise NotSupportedError(msg)


def dialect_for(name: str, driver: str) -> Dialect:
    """Return a new dialect by SQLAlchemy's database and driver names; raises NotSupportedError for others."""
    dialect = SUPPORTED.get(name)
    if dialect is None or driver not in dialect.drivers:
        msg = f"'{name}+{driver}' is not supported. Use one of: {supported_text()}."
        raise NotSupportedError(msg)
    return dialect(driver)


def dialect_of(sqlalchemy_dialect: sa.Dialect) -> Dialect:
    """Return a new dialect for an engine's; raises NotSupportedError if it is not supported."""
    name, driver = sqlalchemy_dialect.name, sqlalchemy_dialect.driver
    if sqlalchemy_dialect.is_async:
        msg = (
            f"Asynchronous engines ('{name}+{driver}') are not supported. Create the engine with create_engine(), for "
            f"one of: {supported_text()}."
        )
        raise NotSupportedError(msg)
    return dialect_for(name, driver)

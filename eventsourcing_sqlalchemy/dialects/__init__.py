"""What differs between databases, one module for each; no other part of the package compares their names."""

from __future__ import annotations

from typing import Final

from eventsourcing.persistence import NotSupportedError

from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.postgresql import PostgreSQLDialect
from eventsourcing_sqlalchemy.dialects.sqlite import SQLiteDialect

__all__ = ["SUPPORTED", "dialect_for", "supported_text"]

SUPPORTED: Final[dict[str, type[Dialect]]] = {cls.name: cls for cls in (PostgreSQLDialect, SQLiteDialect)}
"""The databases that work, as SQLAlchemy names them."""


def supported_text() -> str:
    """Return the databases and drivers that work, for messages."""
    return ", ".join(f"{name} ({', '.join(dialect.drivers)})" for name, dialect in SUPPORTED.items())


def dialect_for(name: str, driver: str) -> Dialect:
    """Return a new dialect for SQLAlchemy's names of a database and a driver; raises NotSupportedError for others."""
    dialect = SUPPORTED.get(name)
    if dialect is None or driver not in dialect.drivers:
        msg = f"'{name}+{driver}' does not work here. These do: {supported_text()}."
        raise NotSupportedError(msg)
    return dialect(driver)

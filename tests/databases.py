"""Databases that live for one test."""

import functools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, NullPool, create_engine, text

from tenancy.demo.server import Postgres


@contextmanager
def fresh_database(server: Postgres) -> Iterator[str]:
    """Create an empty database, yield its name, and drop it even while other sessions are connected to it."""
    name = f"test_{secrets.token_hex(6)}"
    administrator = _administrator(server.url())
    with administrator.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template1"))
    try:
        yield name
    finally:
        with administrator.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@functools.cache
def _administrator(url: str) -> Engine:
    """Return the engine of a server: a new one asks for versions and settings first, which takes longer than the rest.

    It keeps no connection, which a forked child could end.
    """
    return create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)

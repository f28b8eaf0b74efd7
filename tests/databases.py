"""Databases that live for one test."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, text
from sqlalchemy_utils import create_database

from tenancy.demo.server import Postgres


@contextmanager
def fresh_database(server: Postgres) -> Iterator[str]:
    """Create an empty database, yield its name, and drop it even while somebody is connected."""
    name = f"test_{secrets.token_hex(6)}"
    create_database(server.url(name))
    try:
        yield name
    finally:
        engine = create_engine(server.url(), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()

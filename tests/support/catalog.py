"""List the objects of a database from its catalog, without using the package."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.pool import NullPool


def objects(url: str) -> set[str]:
    """Return the names of all objects except the server's own: schemas, relations, types and functions."""
    engine = sa.create_engine(url, poolclass=NullPool)
    statement = _SQLITE if engine.dialect.name == "sqlite" else _POSTGRESQL
    with engine.connect() as connection:
        return set(connection.scalars(sa.text(statement)))


def tenants(url: str, registry: str = "tenancy") -> set[str]:
    """Return the same without the registry's objects."""
    return {name for name in objects(url) if not name.startswith((f"{registry}.", f"{registry}_")) and name != registry}


_SQLITE = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
_POSTGRESQL = """
WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
SELECT nspname FROM ours WHERE nspname <> 'public'
UNION ALL SELECT nspname || '.' || relname FROM pg_class JOIN ours ON ours.oid = relnamespace
UNION ALL SELECT nspname || '.' || typname FROM pg_type JOIN ours ON ours.oid = typnamespace WHERE typtype = 'e'
UNION ALL SELECT nspname || '.' || proname FROM pg_proc JOIN ours ON ours.oid = pronamespace
"""

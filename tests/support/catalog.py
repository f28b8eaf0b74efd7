"""What a database says of itself; nothing here is taken from the package."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.pool import NullPool


def objects(url: str) -> set[str]:
    """Return the names of everything in a database that is not the server's own: schemas and what is in them, types and
    functions too.
    """
    engine = sa.create_engine(url, poolclass=NullPool)
    statement = _SQLITE if engine.dialect.name == "sqlite" else _POSTGRESQL
    with engine.connect() as connection:
        return set(connection.scalars(sa.text(statement)))


def tenants(url: str, registry: str = "tenancy") -> set[str]:
    """Return what `objects` does, without the registry's."""
    return {name for name in objects(url) if not name.startswith((f"{registry}.", f"{registry}_")) and name != registry}


_SQLITE = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
_POSTGRESQL = """
WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
SELECT nspname FROM ours WHERE nspname <> 'public'
UNION ALL SELECT nspname || '.' || relname FROM pg_class JOIN ours ON ours.oid = relnamespace
UNION ALL SELECT nspname || '.' || typname FROM pg_type JOIN ours ON ours.oid = typnamespace WHERE typtype = 'e'
UNION ALL SELECT nspname || '.' || proname FROM pg_proc JOIN ours ON ours.oid = pronamespace
"""

"""Script directories of migrations, and the migration of tenants without a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent, indent
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.migrations.running import HEADS
from tenancy.migrations.scripts import create_directory
from tenancy.model.tenant import Tenant
from tenancy.operations.migrations.user_migrations import UserMigrations

_REVISION = """\
import sqlalchemy as sa
from alembic import op

from tenancy.migrations import own_name

revision = {revision!r}
down_revision = {down_revision!r}
branch_labels = None
depends_on = {depends_on!r}


def upgrade():
{upgrade}


def downgrade():
{downgrade}
"""


class Revisions:
    """A script directory to which a test adds revisions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        create_directory(path)

    def add(
        self,
        revision: str,
        after: str | Sequence[str] | None,
        upgrade: str,
        downgrade: str = "pass",
        depends_on: str | None = None,
    ) -> None:
        """Write a revision with the bodies of its functions."""
        text = _REVISION.format(
            revision=revision,
            down_revision=after,
            depends_on=depends_on,
            upgrade=indent(dedent(upgrade), "    "),
            downgrade=indent(dedent(downgrade), "    "),
        )
        (self.path / "versions" / f"{revision}.py").write_text(text, encoding="utf-8")

    def remove(self, revision: str) -> None:
        """Remove a revision, as code that is older than it."""
        (self.path / "versions" / f"{revision}.py").unlink()


class Item:
    """An item of no job; ``checks`` counts the attempts."""

    def __init__(self) -> None:
        self.checks = 0
        self.progress: Mapping[str, Any] = {}

    def save_progress(self, progress: Mapping[str, Any]) -> None:
        self.progress = progress

    def check(self) -> None:
        self.checks += 1


def migrate(tenants: Tenancy, *slugs: str, target: str = HEADS) -> list[UUID]:
    """Migrate the tenants that are behind, all or some, and return their ids."""
    part = UserMigrations(tenants.fleet, lock_timeout=5.0, target=target)
    behind = [each for each in tenants.fleet.registry.list() if part.is_behind(each)]
    some = [each for each in behind if not slugs or each.slug in slugs]
    for tenant in some:
        part.apply(tenant, Item())
    return [each.id for each in some]


def own_table(tenants: Tenancy, tenant: Tenant | str, name: str) -> sa.Table:
    """Return a tenant's table that migrations have created, reflected from the database."""
    placement = (tenants[tenant] if isinstance(tenant, str) else tenant).placement
    with tenants.fleet.shard.datastore.get_connection() as connection:
        return sa.Table(
            f"{placement.table_prefix}{name}", sa.MetaData(), schema=placement.schema, autoload_with=connection
        )


def has_table(tenants: Tenancy, tenant: str, name: str) -> bool:
    """Return whether a tenant has a table."""
    placement = tenants[tenant].placement
    with tenants.fleet.shard.datastore.get_connection() as connection:
        return sa.inspect(connection).has_table(f"{placement.table_prefix}{name}", schema=placement.schema)


def rows(tenants: Tenancy, tenant: Tenant | str, name: str) -> list[tuple[Any, ...]]:
    """Return the rows of a tenant's table, in order."""
    table = own_table(tenants, tenant, name)
    with tenants.fleet.shard.datastore.get_connection() as connection:
        return [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.c))]


def insert(tenants: Tenancy, tenant: str, name: str, **values: Any) -> None:
    """Insert a row into a tenant's table."""
    with tenants.fleet.shard.datastore.get_connection() as connection:
        connection.execute(sa.insert(own_table(tenants, tenant, name)).values(values))
        connection.commit()

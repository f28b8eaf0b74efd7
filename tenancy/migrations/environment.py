"""Run Alembic's environment in the place of one tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

import sqlalchemy as sa

from eventsourcing_sqlalchemy.alembic import compare_type, include_object, render_item
from tenancy.errors import TenancyError
from tenancy.migrations.place import MigrationPlace

if TYPE_CHECKING:
    from alembic.runtime.environment import EnvironmentContext

__all__ = ["ATTRIBUTE", "OUTSIDE", "MigrationRun", "own_name", "run_migrations"]

ATTRIBUTE: Final = "tenancy"
"""The attribute of Alembic's configuration that holds the :class:`MigrationRun`."""


OUTSIDE: Final = (
    "Run the statement for each tenant in a job of its own before the migration, and let the revision find its result: "
    "op.create_index(..., if_not_exists=True)"
)
"""What to do about a statement that cannot run in a transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationRun:
    """One run of ``env.py``: where, and on which connection."""

    place: MigrationPlace
    dialect: sa.Dialect
    connection: sa.Connection | None = None
    """In a transaction that the caller ends; None to write SQL to ``output``."""
    output: TextIO | None = None
    start: tuple[str, ...] = ()
    """The tenant's revisions, where no connection tells them."""
    metadata: Sequence[sa.MetaData] = ()
    """The tables of the fleet's views, to compare with."""
    has_schemas: bool = True
    """Whether the database has schemas and a search path."""
    is_default_schema: bool = False
    """Whether the connection takes the place's schema for its default one, so that reflection does not name it."""

    def configure(self, context: EnvironmentContext, target_metadata: sa.MetaData | None) -> None:
        """Configure Alembic for the tenant's place."""
        schema = self.place.schema
        options: dict[str, Any] = {
            "version_table": self.place.version_table,
            "version_table_schema": None if self.is_default_schema else schema,
            "target_metadata": [*([] if target_metadata is None else [target_metadata]), *self.metadata],
            "include_object": include_object,
            "compare_type": compare_type,
            "render_item": render_item,
            # A database without schemas cannot change a column: Alembic copies the table.
            "render_as_batch": not self.has_schemas,
            # The caller's transaction covers DDL, whatever Alembic assumes of the database.
            "transactional_ddl": True,
        }
        if self.connection is None:
            context.configure(
                dialect_name=self.dialect.name,
                literal_binds=True,
                output_buffer=self.output,
                starting_rev=self.start or None,  # type: ignore[arg-type] # (Alembic takes several, too)
                **options,
            )
        else:
            connection = self.connection
            if schema is not None:
                connection = connection.execution_options(schema_translate_map={None: schema})
            context.configure(connection=connection, **options)

    def set_search_path(self, context: EnvironmentContext) -> None:
        """Lead raw SQL to the tenant's tables, until the transaction ends."""
        if self.has_schemas and self.place.search_path is not None:
            context.execute(
                sa.select(sa.func.set_config(sa.literal("search_path"), sa.literal(self.place.search_path), sa.true()))
            )


def _refuse_autocommit() -> NoReturn:
    """Raise TenancyError where a revision calls ``autocommit_block()``."""
    msg = "A revision calls autocommit_block(), but all revisions of a tenant run in one transaction."
    raise TenancyError(msg, remedy=OUTSIDE)


def run_migrations(target_metadata: sa.MetaData | None = None) -> None:
    """Run the migrations of one tenant; ``env.py`` calls it.

    ``target_metadata`` has the tables that belong to no view, without schemas and prefixes. Autogenerate compares it,
    and the tables of the fleet's views, with the tables that the revisions create.

    Raises TenancyError when Alembic was not started by ``tenancy``.
    """
    from alembic import context  # noqa: PLC0415 (an extra)

    run = context.config.attributes.get(ATTRIBUTE)
    if not isinstance(run, MigrationRun):
        msg = "These migrations run in the place of a tenant, which the command alembic does not know."
        raise TenancyError(msg, remedy="Use: tenancy migrate, or tenancy migrations --help")
    run.configure(context, target_metadata)  # type: ignore[arg-type] # (a proxy module with the same functions)
    if run.connection is not None:
        # Alembic would commit the transaction of the caller.
        context.get_context().autocommit_block = _refuse_autocommit  # type: ignore[method-assign]
    with context.begin_transaction():
        run.set_search_path(context)  # type: ignore[arg-type] # (as above)
        context.run_migrations()


def own_name(name: str) -> str:
    """Return the running tenant's name for a table, an index or a constraint; for revisions.

    In the schema strategy, it is the name itself. In the prefix strategy, it starts with the tenant's prefix, so that
    no tenant's index has the name of another's. The table of a view is called ``{projection}_tracking_{suffix}``, in
    lower case, as ``own_table`` names it. Raises TenancyError outside of ``upgrade()`` and ``downgrade()``.
    """
    from alembic import context  # noqa: PLC0415 (an extra)

    try:
        run = context.config.attributes.get(ATTRIBUTE)
    except NameError:
        run = None
    if not isinstance(run, MigrationRun):
        msg = f"own_name({name!r}) was called outside of a tenant's migration."
        raise TenancyError(msg, remedy="Call it in upgrade() or downgrade(), which run once for each tenant.")
    return run.place.own_name(name)

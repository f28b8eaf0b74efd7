"""Set up a script directory, and write revisions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tenancy.errors import TenancyError
from tenancy.migrations.environment import ATTRIBUTE
from tenancy.migrations.names_in_source import expand_names
from tenancy.migrations.revisions import alembic_lock, explained

if TYPE_CHECKING:
    from alembic.script import Script

    from tenancy.migrations.environment import MigrationRun
    from tenancy.migrations.revisions import RevisionDirectory

__all__ = ["create_directory", "write_revision"]

_ENV: Final = '''\
"""The environment of this fleet's migrations: `tenancy migrate` runs it once for each tenant."""

from tenancy.migrations import run_migrations

# Tables that belong to no view, without schemas and prefixes: a sqlalchemy.MetaData for --autogenerate.
# The tables that views get from own_table() are known without it.
target_metadata = None

run_migrations(target_metadata)
'''

_TEMPLATE: Final = '''\
"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
Create Date: ${create_date}
"""

import sqlalchemy as sa
from alembic import op

from tenancy.migrations import own_name
${imports + "\\n" if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Upgrade one tenant."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Downgrade one tenant."""
    ${downgrades if downgrades else "pass"}
'''


def create_directory(path: Path) -> Sequence[Path]:
    """Write ``env.py``, the template of revisions and an empty ``versions``; return the files.

    Raises TenancyError when the directory has an ``env.py``.
    """
    files = {path / "env.py": _ENV, path / "script.py.mako": _TEMPLATE}
    if (path / "env.py").exists():
        msg = f"There are migrations in {path} already."
        raise TenancyError(msg, remedy="Write a revision: tenancy migrations revision -m TEXT")
    (path / "versions").mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    return list(files)


def write_revision(
    directory: RevisionDirectory, message: str, *, run: MigrationRun | None = None, **options: Any
) -> Path:
    """Write a revision, and return its file.

    With ``run``, a place at the heads, it has the changes that lead from there to the tables of the code; names of
    tables, indexes and constraints are expanded by ``own_name``. ``options`` are those of ``alembic revision``.
    """
    from alembic import command  # noqa: PLC0415 (an extra)

    with alembic_lock, explained():
        directory.script()  # explains a missing directory
        script: Script | Any = command.revision(
            directory.config(**({} if run is None else {ATTRIBUTE: run})),
            message,
            autogenerate=run is not None,
            **options,
        )
    path = Path(script.path)
    if run is not None:
        path.write_text(expand_names(path.read_text(encoding="utf-8")), encoding="utf-8")
    return path

"""Write revisions of users' tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenancy.migrations.scripts import write_revision

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["write"]


def write(
    fleet: Fleet,
    message: str,
    *,
    autogenerate: bool = False,
    rev_id: str | None = None,
    head: str = "head",
    branch_label: str | None = None,
    depends_on: str | None = None,
) -> Path:
    """Write a revision, and return its file; the options are those of ``alembic revision``.

    With ``autogenerate``, it has the changes from the tables that the revisions create to the tables of the code: those
    of the fleet's views, and the target metadata of ``env.py``. Raises TenancyError for a fleet without migrations and
    for revisions that Alembic rejects.
    """
    options: dict[str, Any] = {"rev_id": rev_id, "head": head, "branch_label": branch_label, "depends_on": depends_on}
    migrator = fleet.migrator
    if not autogenerate:
        return write_revision(migrator.directory, message, **options)
    with migrator.reference().at(metadata=fleet.projections.metadata(fleet.settings.environment)) as run:
        return write_revision(migrator.directory, message, run=run, **options)

"""Write revisions of users' tables."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy.migrations.scripts import write_revision

if TYPE_CHECKING:
    import sqlalchemy as sa

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
    with migrator.reference().at(metadata=_tables_of_views(fleet)) as run:
        return write_revision(migrator.directory, message, run=run, **options)


def _tables_of_views(fleet: Fleet) -> list[sa.MetaData]:
    """Return the views' own tables, without a tenant's schema and prefix."""
    plain = {
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "CREATE_TABLE": "no",
        "SQLALCHEMY_SCHEMA": "",
        "SQLALCHEMY_TABLE_PREFIX": "",
    }
    found = []
    for each in fleet.projections:
        env = Environment(each.projection.name, {**fleet.settings.environment, **plain})
        with closing(InfrastructureFactory.construct(env)) as factory:
            view = factory.tracking_recorder(each.view)
            if isinstance(view, SQLAlchemyTrackingRecorder):
                found.append(view.own_tables)
    return found

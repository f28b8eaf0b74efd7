"""Migrations of users' tables with Alembic: what ``env.py`` and revisions call.

The extra ``migrations`` installs Alembic. Nothing here imports it before a migration runs.
"""

from tenancy.migrations.environment import own_name, run_migrations

__all__ = ["own_name", "run_migrations"]

"""Fleets with migrations, for each place of tenants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tenancy import Tenancy
from tests.samples.training_school.system import SYSTEM
from tests.support.revisions import Revisions

# Names of a place, and its variables on PostgreSQL.
PLACES: dict[str, dict[str, str]] = {
    "schema": {},
    "prefix": {"TENANCY_TABLE_PREFIX": "{tenant}_"},
    "both": {"TENANCY_SCHEMA": "fleet", "TENANCY_TABLE_PREFIX": "{tenant}_{application}_"},
}

NOTES = """
op.create_table(
    own_name("notes"), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text, nullable=False)
)
"""
NUMBERS = """
op.add_column(own_name("notes"), sa.Column("number", sa.Integer))
op.create_index(own_name("ix_notes_number"), own_name("notes"), ["number"])
op.execute(f"UPDATE {own_name('notes')} SET number = length(text)")
"""
NO_NUMBERS = """
op.drop_index(own_name("ix_notes_number"), table_name=own_name("notes"))
op.drop_column(own_name("notes"), "number")
"""


@pytest.fixture
def revisions(tmp_path: Path) -> Revisions:
    """A script directory with one revision, a1, which creates a table of notes."""
    found = Revisions(tmp_path / "migrations")
    found.add("a1", None, NOTES, 'op.drop_table(own_name("notes"))')
    return found


@pytest.fixture(params=["sqlite", "schema", "prefix"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables of a fleet on an empty database."""
    if request.param == "sqlite":
        return {"SQLALCHEMY_URL": request.getfixturevalue("sqlite_url")}
    return {"SQLALCHEMY_URL": request.getfixturevalue("postgres_url"), **PLACES[request.param]}


@pytest.fixture
def tenants(env: dict[str, str], revisions: Revisions) -> Iterator[Tenancy]:
    """A fleet with the tenants acme and globex, at the revision a1."""
    with Tenancy(system=SYSTEM, env=env, migrations=revisions.path) as tenants:
        list(tenants.create_many(["acme", "globex"]))
        yield tenants

"""Adoption of existing tables."""

from __future__ import annotations

import pytest

from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel

pytestmark = pytest.mark.usefixtures("no_purge_delay")


def test_existing_tables_become_a_tenant(tenancy: Command) -> None:
    place = "SQLALCHEMY_TABLE_PREFIX" if tenancy.url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"
    name = "legacy_"
    with Kennel(
        env={"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": tenancy.url, place: name}
    ) as old:
        old.register("Fido")
    option = "--prefix" if tenancy.url.startswith("sqlite") else "--schema"
    record = tenancy.ok("adopt", "acme", option, name, "--json").json
    assert record["adopted"] is True
    assert record["schema" if option == "--schema" else "prefix"] == name
    purged = tenancy.ok("purge", "acme", "--yes").out
    assert purged.endswith(
        "nothing left.\n" if option == "--prefix" else 'kept (not owned by the tenant): schema "legacy_".\n'
    )

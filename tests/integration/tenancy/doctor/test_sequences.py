"""Sequences that are behind their tables."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from eventsourcing_sqlalchemy.errors import SequenceBehindError
from tenancy.operations.doctor import examine, repair
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel
from tests.support.examinations import about, fleet, run, tables


def test_sequences_behind_their_tables_are_found_and_moved(postgres_url: str) -> None:
    """As after a data-only restore. One sequence cannot be moved; the others are moved all the same."""
    with fleet(postgres_url, SQLALCHEMY_LOCK_TIMEOUT="0.5") as tenants:
        list(tenants.create_many(["acme", "globex", "initech", "umbrella"]))
        slugs = ["acme", "globex", "initech"]
        run(postgres_url, "SELECT setval('tenancy.tenancy_registry_events_id_seq', 1)")
    with fleet(postgres_url, SQLALCHEMY_LOCK_TIMEOUT="0.5") as tenants:
        with pytest.raises(SequenceBehindError, match=r"tenancy_registry_events_id_seq.*tenancy doctor --repair"):
            tenants.suspend("umbrella")
        for slug in slugs:
            tenants[slug].get(Kennel).register("Fido")
            (table,) = tables(tenants, slug)
            sequence = f'{table[:-1]}_id_seq"'
            run(postgres_url, f"UPDATE {table} SET id = 100", f"ALTER SEQUENCE {sequence} RESTART")
            with pytest.raises(SequenceBehindError, match="tenancy doctor --repair"):
                tenants[slug].get(Kennel).register("Rex")
        found = about(examine(tenants.fleet), "sequences")
        assert [(each.level, each.tenant) for each in found] == [("failure", owner) for owner in (None, *slugs)]
        blocker = sa.create_engine(postgres_url)
        key = tenants.fleet.inventory.specs(tenants["globex"].placement, tenants.application_specs())[0].name.key
        with blocker.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({key})")
            done = about(list(repair(tenants.fleet)), "sequences")
        blocker.dispose()
        assert {each.tenant: each.level for each in done} == {
            None: "ok",
            "acme": "ok",
            "globex": "failure",
            "initech": "ok",
        }
        assert Command(postgres_url)("doctor", "--repair").code == 0
        for slug in slugs:
            tenants[slug].get(Kennel).register("Rex")
        tenants.suspend("umbrella")
        assert list(repair(tenants.fleet)) == []

"""The command rebuild, as operators use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tests.acceptance.commands import Command
from tests.samples.training_school.ledger import KeepLedger
from tests.support.rebuilds import APP, expected_content, fill, ledger, ledger_fleet, spaces

SLUGS = ["acme", "globex"]


@pytest.fixture
def tenancy(sqlite_url: str) -> Command:
    """The command on a database with two tenants."""
    return Command(sqlite_url, APP)


@pytest.fixture(autouse=True)
def tenants(sqlite_url: str) -> Iterator[Tenancy]:
    """The same fleet in this process. Its ledgers have lost their tricks."""
    with ledger_fleet(sqlite_url, {}) as fleet:
        for slug in SLUGS:
            fleet.create(slug)
            fill(fleet, slug, 3)
        with fleet.runner() as runner:
            for slug in SLUGS:
                runner.wait(slug)
                view = ledger(fleet, slug)
                with view.transaction() as session:
                    session.execute(sa.delete(view.tricks))
        yield fleet


def test_views_are_rebuilt(tenancy: Command, tenants: Tenancy) -> None:
    plan = tenancy.ok("rebuild", "KeepLedger", "--dry-run", "--json").json
    assert [(each["tenant"], each["summary"]) for each in plan["items"]] == [
        (slug, "rebuild the view of KeepLedger") for slug in SLUGS
    ]
    outcome = tenancy.ok("rebuild", "KeepLedger", "--keep-old", "--canary", "1", "--workers", "16", "--actor", "crm:7")
    (job,) = tenants.jobs.list()
    assert outcome.out == f"Job {job.id} (rebuild): 2 done.\n"
    for slug in SLUGS:
        assert ledger(tenants, slug).content() == expected_content(tenants, slug)
        assert (tenants.history(slug)[-1].actor, tenants.history(slug)[-1].remark) == ("crm:7", KeepLedger.name)
    assert spaces(tenants)
    assert "2 done" in tenancy.ok("rebuild", "KeepLedger", "--drop-old").out
    assert spaces(tenants) == []
    assert tenancy.ok("rebuild", "KeepLedger", "--drop-old").out == "Nothing to do.\n"


def test_refused_arguments(tenancy: Command) -> None:
    assert "Pass one of: KeepLedger, KeepNames" in tenancy("rebuild", "Ledgers").err
    assert "cannot be combined" in tenancy("rebuild", "KeepLedger", "--keep-old", "--drop-old").err

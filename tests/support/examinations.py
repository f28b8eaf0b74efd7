"""Helpers of tests that examine fleets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.model.tenant import TenantStatus
from tenancy.operations.doctor import Finding
from tests.samples.kennels import Kennel


def fleet(url: str, *applications: type[Kennel], **variables: str) -> Tenancy:
    """Return a fleet on a database."""
    return Tenancy(applications=applications or [Kennel], env={"SQLALCHEMY_URL": url, **variables})


def about(findings: Sequence[Finding], name: str) -> list[Finding]:
    """Return the findings of one name."""
    return [finding for finding in findings if finding.name == name]


def levels(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the level of each name whose findings are not all ok."""
    return {finding.name: finding.level for finding in findings if finding.level != "ok"}


def run(url: str, *statements: str) -> None:
    """Run statements without the fleet."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def tables(tenants: Tenancy, slug: str) -> list[str]:
    """Return the names of a tenant's event tables."""
    specs = tenants.fleet.inventory.specs(tenants[slug].placement, tenants.application_specs())
    return [str(spec.name) for spec in specs if spec.name.name.endswith("_events")]


def age(url: str, slug: str, status: TenantStatus) -> None:
    """Backdate a tenant's status, as after a process was killed long ago."""
    rows = "tenancy_tenants" if url.startswith("sqlite") else "tenancy.tenants"
    then = (datetime.now(UTC) - timedelta(hours=1)).isoformat(" ")
    run(url, f"UPDATE {rows} SET status = '{status}', changed_at = '{then[:26]}' WHERE slug = '{slug}'")

"""Examine a fleet: all findings, in the order in which an operator reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from eventsourcing.persistence import PersistenceError

from tenancy.errors import RegistryMismatch, RegistryMissing
from tenancy.operations.doctor import (
    applications,
    database,
    hooks,
    installation,
    limits,
    migrations,
    sequences,
    steps,
    tables,
)
from tenancy.operations.doctor.finding import Finding, failure
from tenancy.registry import FORMAT

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["examine"]


def examine(fleet: Fleet) -> Sequence[Finding]:
    """Return all findings about a fleet. Nothing is changed."""
    findings = [*installation.check()]
    answers = [*database.check_answers(fleet)]
    findings += answers
    if database.is_unreachable(answers):
        return findings
    findings += database.check_connection(fleet)
    every: Sequence[Tenant] = ()
    try:
        fleet.registry.check_format()
        every = fleet.registry.list()
        what = f"Format {FORMAT}, in {fleet.registry.datastore.shared}."
        findings.append(Finding(name="registry", level="ok", what=what))
        findings += _tenants(fleet, every)
    except (RegistryMissing, RegistryMismatch) as error:
        findings.append(failure("registry", error))
    except PersistenceError as error:
        findings.append(Finding(name="registry", level="failure", what=f"It cannot be examined: {error}."))
    findings += database.check_rights(fleet, every)
    return findings


def _tenants(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    yield from applications.check(fleet)
    yield from hooks.check(fleet)
    yield from hooks.check_reactions(fleet, every)
    yield from steps.check(fleet, every)
    yield from limits.check(every)
    yield from tables.check(fleet, every)
    yield from migrations.check(fleet, every)
    yield from migrations.check_drift(fleet, every)
    yield from sequences.check(fleet, every)
    yield from tables.check_orphans(fleet, every)
    yield from steps.check_due(fleet)

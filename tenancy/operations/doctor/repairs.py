"""Repair what is safe to repair automatically."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from tenancy.errors import EncodingMismatch, RegistryMismatch, RegistryMissing, RegistryUnavailable, TenancyError
from tenancy.operations.doctor import applications, migrations, sequences, steps, tables
from tenancy.operations.doctor.finding import HALF_DONE, Finding, failure, whole_tenants
from tenancy.storage.extra_tables import check_code

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["repair"]


def repair(fleet: Fleet, *, actor: str | None = None) -> Iterator[Finding]:
    """Complete interrupted steps, create missing tables, and advance sequences that are behind; yield each repair, and
    each failed one as a failure.

    Orphans and tables of another shape stay as they are. A failure does not stop the repair of other tenants.
    Applications and views that create tables of their own are constructed once per tenant.
    """
    try:
        yield from applications.record(fleet)
        every = fleet.registry.list()
    except (RegistryMissing, RegistryMismatch, EncodingMismatch) as error:
        yield failure("registry", error)
        return
    yield from migrations.record_versions(fleet, every, actor)
    yield from sequences.repair(fleet, every)  # first: the repairs below record registry events
    application_specs = fleet.application_specs()
    broken = {tenant.id for tenant, _ in fleet.inventory.faults(whole_tenants(every), application_specs)}
    creates_extra_tables = any(application_spec.creates_extra_tables for application_spec in application_specs)
    try:
        for application_spec in application_specs:
            check_code(application_spec)
    except TenancyError as error:
        yield Finding(name="tables", level="failure", what=str(error))  # once, instead of for every tenant
        creates_extra_tables = False
    for tenant in every:
        is_half_done, is_broken = tenant.status in HALF_DONE, tenant.id in broken
        if not (is_half_done or is_broken or creates_extra_tables):
            continue
        try:
            if is_half_done:
                done: Finding | None = steps.complete(fleet, tenant, actor)
            else:
                done = tables.create_missing(fleet, tenant, is_broken=is_broken)
        except RegistryUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 (the code of applications and views runs here)
            name = "steps" if is_half_done else "tables"
            done = Finding(name=name, level="failure", what=f"{tenant.slug!r}: {error}")
        if done is not None:
            yield replace(done, tenant=tenant.slug)

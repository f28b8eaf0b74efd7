"""One result of the examination, and what several checks need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tenancy.model.tenant import TenantStatus

if TYPE_CHECKING:
    from tenancy.errors import TenancyError
    from tenancy.model.tenant import Tenant

__all__ = ["HALF_DONE", "Finding", "Level", "counted", "failure", "whole_tenants"]

Level = Literal["ok", "warning", "failure"]

HALF_DONE: Final = {
    TenantStatus.PROVISIONING: "is being created",
    TenantStatus.PURGING: "is being purged",
}
"""Statuses of tenants whose tables are still to be created or removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of the examination, or one repair."""

    name: str
    """The subject: ``database``, ``rights``, ``versions``, ``driver``, ``pooler``, ``distributions``,
    ``registry``, ``applications``, ``hooks``, ``reactions``, ``tables``, ``migrations``, ``drift``, ``sequences``,
    ``steps``, ``limits``, ``orphans``, ``due``.
    """
    level: Level
    what: str
    remedy: str = ""
    tenant: str | None = None
    """The slug of the tenant, for a finding about one tenant."""


def failure(name: str, error: TenancyError) -> Finding:
    """Return an error as a finding."""
    return Finding(name=name, level="failure", what=error.message, remedy=error.remedy, tenant=error.tenant)


def counted(number: int) -> str:
    """Return a number of tenants in words."""
    return f"{number} tenant{'' if number == 1 else 's'}"


def whole_tenants(every: Sequence[Tenant]) -> list[Tenant]:
    """Return the tenants that have all their tables, unless there is a fault."""
    return [tenant for tenant in every if tenant.status not in HALF_DONE]

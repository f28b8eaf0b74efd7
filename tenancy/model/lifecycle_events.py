"""Lifecycle events: what a reaction is told about a tenant's change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final
from uuid import UUID

from tenancy.model.tenant import Tenant

__all__ = ["EVENTS", "LifecycleEvent"]

EVENTS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("activate", "active"): "activated",
        ("suspend", "suspended"): "suspended",
        ("resume", "active"): "resumed",
        ("rename", ""): "renamed",
        ("update", ""): "updated",
        ("archive", "archived"): "archived",
        ("restore", ""): "restored",
        ("delete", "deleted"): "deleted",
        ("undelete", ""): "undeleted",
        ("purge", "purged"): "purged",
    }
)
"""The name of an event by a change's action and status; with an empty status, whatever that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleEvent:
    """A change of a tenant that a reaction gets after the fact."""

    name: str
    """For example ``suspended``."""
    tenant_id: UUID
    number: int
    """The number of the change in the tenant's history, from 1."""
    status: str
    """The tenant's status after the change."""
    actor: str | None
    at: datetime
    remark: str | None = field(default=None, repr=False)
    """The reason or former slug; None once the tenant is purged."""
    tenant: Tenant | None = None
    """The tenant as the registry has it now, with later changes; None once it is purged."""

    @property
    def slug(self) -> str | None:
        """The slug that the tenant has now; None once it is purged, because the registry erases it."""
        return None if self.tenant is None else self.tenant.slug

    @property
    def key(self) -> str:
        """The same text at every attempt, and another one for each event: an idempotency key for other services."""
        return f"{self.tenant_id}/{self.number}"

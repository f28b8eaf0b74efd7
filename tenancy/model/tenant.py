"""A tenant, its statuses, and the checks of status and actor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from uuid import UUID

from tenancy.errors import (
    TenancyError,
    TenantArchived,
    TenantDeleted,
    TenantNotReady,
    TenantPurged,
    TenantSuspended,
    TenantUnavailable,
)
from tenancy.model.placement import Placement
from tenancy.model.versions import Versions

if TYPE_CHECKING:
    from eventsourcing.application import Application

__all__ = [
    "Action",
    "Tenant",
    "TenantRequest",
    "TenantStatus",
    "check_actor",
    "check_status",
    "status_error",
]

_TApplication = TypeVar("_TApplication", bound="Application[Any]")


class TenantStatus(StrEnum):
    """A tenant's status. A purged tenant has none: it no longer exists."""

    PROVISIONING = "provisioning"
    """The slug is taken, and the tables are being created."""
    ACTIVE = "active"
    SUSPENDED = "suspended"
    """Writes are refused, and reads unless they were allowed."""
    ARCHIVED = "archived"
    """Offline, and kept."""
    DELETED = "deleted"
    """Offline, and due to be purged after the grace period."""
    PURGING = "purging"
    """The data is being removed."""


class Action(StrEnum):
    """A change of a tenant, as the history records it."""

    CREATE = "create"
    ADOPT = "adopt"
    ACTIVATE = "activate"
    RENAME = "rename"
    UPDATE = "update"
    """The name or the metadata is changed."""
    SUSPEND = "suspend"
    RESUME = "resume"
    ARCHIVE = "archive"
    RESTORE = "restore"
    DELETE = "delete"
    UNDELETE = "undelete"
    PURGE = "purge"
    INSPECT = "inspect"
    """An operator reads it, whatever it refuses to others."""
    SKIP = "skip"
    """A follower skips one notification."""
    MIGRATE = "migrate"
    """The tables are migrated to another version."""
    REBUILD = "rebuild"
    """A view is replaced with a rebuilt one."""
    ADD_DOMAIN = "add_domain"
    VERIFY_DOMAIN = "verify_domain"
    """Requests with the host are the tenant's from now on."""
    REMOVE_DOMAIN = "remove_domain"


class ApplicationSource(Protocol):
    """The part of a :class:`~tenancy.Tenancy` that its tenants call."""

    def application(self, cls: type[_TApplication], tenant: Tenant, /) -> _TApplication:
        """Return a tenant's application."""

    def env(self, tenant: Tenant, /) -> dict[str, str]:
        """Return the variables of a tenant's applications."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRequest:
    """A tenant to create; ``name`` defaults to the slug as it is written here."""

    slug: str
    name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant as the registry had it. Only ``get`` checks the current status."""

    id: UUID
    slug: str
    name: str
    status: TenantStatus
    reads: bool
    """Whether a suspended tenant can be read."""
    placement: Placement
    adopted: bool
    """Whether its tables existed before it was registered."""
    created_at: datetime
    changed_at: datetime
    """The time of the last status change."""
    previous: tuple[TenantStatus, ...] = ()
    """Earlier statuses; ``restore`` and ``undelete`` lead back to the last one."""
    due_at: datetime | None = None
    """When a deleted tenant is due to be purged."""
    reason: str | None = field(default=None, repr=False)
    """The reason given for the last status change."""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    request_id: str | None = field(default=None, repr=False)
    """The id of the request that created it: a retry creates no second tenant."""
    versions: Versions = field(default_factory=Versions, repr=False, hash=False)
    """The versions of its tables."""
    tenancy: ApplicationSource | None = field(default=None, repr=False, compare=False)
    """The Tenancy object that returned it; None for a tenant that comes from the registry itself."""

    @classmethod
    def requested(
        cls,
        request: TenantRequest,
        tenant_id: UUID,
        slug: str,
        placement: Placement,
        versions: Versions,
        *,
        adopted: bool = False,
    ) -> Tenant:
        """Return a new tenant, which is not registered yet; ``slug`` is normalized, ``versions`` are of its tables."""
        now = datetime.now(UTC)
        return cls(
            id=tenant_id,
            slug=slug,
            name=request.name or request.slug,
            status=TenantStatus.PROVISIONING,
            reads=False,
            placement=placement,
            adopted=adopted,
            created_at=now,
            changed_at=now,
            metadata=request.metadata,
            request_id=request.request_id,
            versions=versions,
        )

    def get(self, application_class: type[_TApplication]) -> _TApplication:
        """Return this tenant's application; the same object to all callers. Do not close it.

        Raises a TenantUnavailable when the tenant cannot be read, and NotRegistered for an application that is not part
        of the fleet.
        """
        return self._source().application(application_class, self)

    def env(self) -> dict[str, str]:
        """Return the environment variables that put a process's applications into this tenant's tables."""
        return self._source().env(self)

    def _source(self) -> ApplicationSource:
        if self.tenancy is None:
            msg = f"Tenant {self.slug!r} was read from the registry itself."
            raise TenancyError(msg, remedy="Get it from the Tenancy object: tenants[slug]", tenant=self.slug)
        return self.tenancy


_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#+-]{0,99}")


def check_actor(actor: str | None) -> None:
    """Raise TenancyError for an actor that is not an opaque id: the history is never erased."""
    if actor is not None and not (isinstance(actor, str) and _ID.fullmatch(actor)):
        msg = "Invalid actor: use an opaque id, because the history is never erased."
        raise TenancyError(msg, remedy="Pass up to 100 letters a-z, digits and ._:/#+-, without a space or an @.")


def check_status(tenant: Tenant, *, writes: bool, as_operator: bool = False) -> None:
    """Raise a TenantUnavailable unless the tenant's status allows reads, or with ``writes`` writes.

    Operators may read suspended and archived tenants.
    """
    status = tenant.status
    if status is TenantStatus.ACTIVE or (status is TenantStatus.SUSPENDED and tenant.reads and not writes):
        return
    if as_operator and not writes and status in (TenantStatus.SUSPENDED, TenantStatus.ARCHIVED):
        return
    error, what, remedy = status_error(tenant)
    since = f" since {tenant.changed_at:%Y-%m-%d %H:%MZ}"
    why = f" ({tenant.reason})" if tenant.reason else ""
    raise error(f"Tenant {tenant.slug!r} {what}{since}{why}.", remedy=remedy, tenant=tenant.slug)


def status_error(tenant: Tenant) -> tuple[type[TenantUnavailable], str, str]:
    """Return the error class, description and remedy for a tenant that is not active."""
    error, what, remedy = _STATUS_ERRORS[tenant.status]
    return error, what, remedy.format(tenant.slug)


_STATUS_ERRORS: Final[Mapping[TenantStatus, tuple[type[TenantUnavailable], str, str]]] = {
    TenantStatus.PROVISIONING: (TenantNotReady, "is being created", "If that takes long: tenancy doctor --repair"),
    TenantStatus.SUSPENDED: (TenantSuspended, "is suspended", "Resume it: tenancy resume {}"),
    TenantStatus.ARCHIVED: (TenantArchived, "is archived", "Restore it: tenancy restore {}"),
    TenantStatus.DELETED: (TenantDeleted, "is deleted", "Undelete it: tenancy undelete {}"),
    TenantStatus.PURGING: (TenantPurged, "is being purged", ""),
}

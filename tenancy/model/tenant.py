"""A tenant: what is known of it, which statuses it can have, and which verb leads from one to another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

from tenancy.errors import (
    TenancyError,
    TenantArchived,
    TenantDeleted,
    TenantNotReady,
    TenantPurged,
    TenantSuspended,
    TenantUnavailable,
    TransitionRefused,
)
from tenancy.model.placement import Placement

if TYPE_CHECKING:
    from eventsourcing.application import Application

__all__ = [
    "TRANSITIONS",
    "Tenant",
    "TenantRequest",
    "TenantStatus",
    "Transition",
    "Verb",
    "check_actor",
    "check_status",
    "next_status",
    "status_error",
]

_TApplication = TypeVar("_TApplication", bound="Application[Any]")


class TenantStatus(StrEnum):
    """What a tenant can be in. A purged one is in none: it is no longer there."""

    PROVISIONING = "provisioning"
    """Its slug is taken and its tables are being made."""
    ACTIVE = "active"
    SUSPENDED = "suspended"
    """Nothing is recorded; reads stay, if it was suspended so."""
    ARCHIVED = "archived"
    """Off-line, and kept."""
    DELETED = "deleted"
    """Off-line, and to be purged after a time."""
    PURGING = "purging"
    """Its data is being removed."""


class Verb(StrEnum):
    """What can be done to a tenant."""

    CREATE = "create"
    ADOPT = "adopt"
    ACTIVATE = "activate"
    RENAME = "rename"
    SUSPEND = "suspend"
    RESUME = "resume"
    ARCHIVE = "archive"
    RESTORE = "restore"
    DELETE = "delete"
    UNDELETE = "undelete"
    PURGE = "purge"
    SKIP = "skip"
    """A follower was told to leave out one notification."""


class Transition(NamedTuple):
    """Where a verb leads: ``target`` None means back to the status that the tenant had before this one."""

    sources: frozenset[TenantStatus]
    target: TenantStatus | None


_SERVING: Final = frozenset({TenantStatus.ACTIVE, TenantStatus.SUSPENDED})
_KEPT: Final = _SERVING | {TenantStatus.ARCHIVED}

TRANSITIONS: Final[Mapping[Verb, Transition]] = {
    Verb.ACTIVATE: Transition(frozenset({TenantStatus.PROVISIONING}), TenantStatus.ACTIVE),
    Verb.SUSPEND: Transition(frozenset({TenantStatus.ACTIVE}), TenantStatus.SUSPENDED),
    Verb.RESUME: Transition(frozenset({TenantStatus.SUSPENDED}), TenantStatus.ACTIVE),
    Verb.ARCHIVE: Transition(_SERVING, TenantStatus.ARCHIVED),
    Verb.RESTORE: Transition(frozenset({TenantStatus.ARCHIVED}), None),
    Verb.DELETE: Transition(_KEPT, TenantStatus.DELETED),
    Verb.UNDELETE: Transition(frozenset({TenantStatus.DELETED}), None),
    Verb.PURGE: Transition(frozenset(TenantStatus) - {TenantStatus.PURGING}, TenantStatus.PURGING),
}
"""The one ladder. RENAME and SKIP keep the status, and are for tenants that are kept."""


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
    """A tenant as it was when the registry was asked. ``get``, ``env`` and ``refresh`` ask again."""

    id: UUID
    slug: str
    name: str
    status: TenantStatus
    reads: bool
    """Whether a suspended tenant can be read."""
    placement: Placement
    adopted: bool
    """Whether its tables were there before it."""
    created_at: datetime
    changed_at: datetime
    """When the status was last changed."""
    previous: tuple[TenantStatus, ...] = ()
    """Where ``restore`` and ``undelete`` lead: back to the last of these."""
    due_at: datetime | None = None
    """When a deleted tenant may be purged."""
    reason: str | None = field(default=None, repr=False)
    """Why the status was last changed, as somebody wrote it."""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    request_id: str | None = field(default=None, repr=False)
    """What made it, so that the same request makes no second one."""
    tenancy: ApplicationSource | None = field(default=None, repr=False, compare=False)
    """The Tenancy object that returned it; None for a tenant that comes from the registry itself."""

    @classmethod
    def requested(
        cls, request: TenantRequest, tenant_id: UUID, slug: str, placement: Placement, *, adopted: bool = False
    ) -> Tenant:
        """Return a new tenant, which is not registered yet; ``slug`` is normalized."""
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
        )

    def get(self, application_class: type[_TApplication]) -> _TApplication:
        """Return this tenant's application; the same object to all callers. It need not be closed.

        Raises a TenantUnavailable when the tenant does not serve, and NotRegistered for an application that the
        tenants do not have.
        """
        return self._source().application(application_class, self)

    def env(self) -> dict[str, str]:
        """Return the variables that put the applications of a process into this tenant's tables."""
        return self._source().env(self)

    def _source(self) -> ApplicationSource:
        if self.tenancy is None:
            msg = f"Tenant {self.slug!r} was read from the registry alone."
            raise TenancyError(msg, remedy="Ask the fleet for it: tenants[slug]", tenant=self.slug)
        return self.tenancy


_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#+-]{0,99}")


def check_actor(actor: str | None) -> None:
    """Raise TenancyError for an actor that is no id: the history is never erased, and a name could not be."""
    if actor is not None and not (isinstance(actor, str) and _ID.fullmatch(actor)):
        msg = "The actor is no id. The history is never erased, so it takes no name and no address."
        raise TenancyError(msg, remedy="Give an id: up to 100 letters a-z, digits and ._:/#+- without a space or an @.")


def check_status(tenant: Tenant, *, writes: bool) -> None:
    """Raise a TenantUnavailable unless the tenant can be read, or with ``writes`` written, in its status."""
    status = tenant.status
    if status is TenantStatus.ACTIVE or (status is TenantStatus.SUSPENDED and tenant.reads and not writes):
        return
    error, what, remedy = status_error(tenant)
    since = f" since {tenant.changed_at:%Y-%m-%d %H:%MZ}"
    why = f" ({tenant.reason})" if tenant.reason else ""
    raise error(f"Tenant {tenant.slug!r} {what}{since}{why}.", remedy=remedy, tenant=tenant.slug)


def status_error(tenant: Tenant) -> tuple[type[TenantUnavailable], str, str]:
    """Return why a tenant that is not active does not serve: the error of its status, what it is, and the remedy."""
    error, what, remedy = _REFUSALS[tenant.status]
    return error, what, remedy.format(tenant.slug)


_REFUSALS: Final[Mapping[TenantStatus, tuple[type[TenantUnavailable], str, str]]] = {
    TenantStatus.PROVISIONING: (TenantNotReady, "is being made", "If that takes long: tenancy doctor --repair"),
    TenantStatus.SUSPENDED: (TenantSuspended, "is suspended", "Resume: tenancy resume {}"),
    TenantStatus.ARCHIVED: (TenantArchived, "is archived", "Restore: tenancy restore {}"),
    TenantStatus.DELETED: (TenantDeleted, "is deleted", "Undelete: tenancy undelete {}"),
    TenantStatus.PURGING: (TenantPurged, "is being purged", ""),
}


def next_status(tenant: Tenant, verb: Verb) -> TenantStatus | None:
    """Return the status that a verb leads to, or None when the tenant is there already; raises TransitionRefused."""
    sources, target = TRANSITIONS[verb]
    if target is not None and tenant.status is target:
        return None
    if tenant.status not in sources:
        if target is None and tenant.status in _KEPT:
            return None  # restored or undeleted already
        accepted = " or ".join(status for status in TenantStatus if status in sources)
        msg = f"Tenant {tenant.slug!r} is {tenant.status}: {verb} is for tenants that are {accepted}."
        raise TransitionRefused(msg, remedy=_FIRST.get(tenant.status, "").format(tenant.slug), tenant=tenant.slug)
    return target if target is not None else tenant.previous[-1]


_FIRST: Final[Mapping[TenantStatus, str]] = {
    TenantStatus.PROVISIONING: "Complete it first: tenancy doctor --repair",
    TenantStatus.ARCHIVED: "Restore it first: tenancy restore {}",
    TenantStatus.DELETED: "Undelete it first: tenancy undelete {}",
    TenantStatus.PURGING: "Nothing but purge applies to it any more: tenancy purge {}",
}

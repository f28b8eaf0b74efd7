"""All errors of this package, as one tree.

    TenancyError
    ├── TenantNotFound          no tenant has this slug
    ├── TenantExists            the slug is taken
    ├── InvalidSlug             the slug is invalid
    ├── DomainNotFound          the tenant has no such domain
    ├── DomainExists            the domain belongs to another tenant
    ├── DomainNotVerified       the token is not the domain's
    ├── InvalidDomain           the domain is not a host name
    ├── TenantUnavailable       the tenant exists, and its status refuses the call
    │   ├── TenantNotReady      its tables are being created
    │   ├── TenantSuspended
    │   ├── TenantArchived
    │   ├── TenantDeleted       it can still be undeleted
    │   ├── TenantOutdated      its tables lack a migration that this code needs
    │   └── TenantPurged        its data is removed, or being removed
    ├── QuotaExceeded           the tenant has recorded as much as its quota allows
    ├── TransitionRefused       the change does not apply to the tenant's status
    ├── HookFailed              the tenant is not ready: a hook for new tenants has failed
    ├── NoCurrentTenant         the context has no current tenant
    ├── ReadOnlyScope           an operator's scope allows no writes
    ├── RegistryMissing         this database has no registry
    ├── RegistryMismatch        the registry has an older or newer format than this version
    ├── RegistryUnavailable     the registry cannot be reached
    ├── NotRegistered           the application is not registered with this fleet
    ├── EncodingMismatch        this process has another cipher or compressor than the fleet
    ├── JobNotFound             no job has this id
    ├── JobEnded                the job has ended, or was cancelled
    ├── NotCaughtUp             a follower has not processed the events in time
    ├── TenancyClosed           the Tenancy object is closed
    ├── InvalidArgument         an argument has the wrong type, or a value that is not accepted
    └── PartlyDone              some of several tenants failed

Each has a ``code`` for programs, a ``remedy`` for people, and the ``tenant`` that it is about (a slug, an id, or
None). A message never contains another tenant's name, a password, SQL or parameters. Mistakes in settings raise
``eventsourcing_sqlalchemy.errors.SettingsError``, as in the persistence module.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

__all__ = [
    "DomainExists",
    "DomainNotFound",
    "DomainNotVerified",
    "EncodingMismatch",
    "HookFailed",
    "InvalidArgument",
    "InvalidDomain",
    "InvalidSlug",
    "JobEnded",
    "JobNotFound",
    "NoCurrentTenant",
    "NotCaughtUp",
    "NotRegistered",
    "PartlyDone",
    "QuotaExceeded",
    "ReadOnlyScope",
    "RegistryMismatch",
    "RegistryMissing",
    "RegistryUnavailable",
    "TenancyClosed",
    "TenancyError",
    "TenantArchived",
    "TenantDeleted",
    "TenantExists",
    "TenantNotFound",
    "TenantNotReady",
    "TenantOutdated",
    "TenantPurged",
    "TenantSuspended",
    "TenantUnavailable",
    "TransitionRefused",
]


class TenancyError(Exception):
    """The base of all errors of this package; ``str()`` is the message and the remedy, if any."""

    code: ClassVar[str] = "failed"
    http_status: int | None = None
    """The status of HTTP responses to the error; None for one that only the web middleware can interpret, or a bug."""
    retry_after: float | None = None
    """After how many seconds a client may retry, for the header of that name."""

    def __init__(self, message: str, *, remedy: str = "", tenant: str | None = None) -> None:
        super().__init__(f"{message} {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy
        self.tenant = tenant


class TenantNotFound(TenancyError, LookupError):  # noqa: N818 (named after the condition)
    """No tenant has this slug."""

    code = "not_found"


class TenantExists(TenancyError):  # noqa: N818 (as above)
    """The slug is taken: two customers must never share a tenant."""

    code = "exists"


class InvalidSlug(TenancyError, ValueError):  # noqa: N818 (as above)
    """The slug is invalid: empty, too long, or containing invisible or confusable characters."""

    code = "invalid_slug"


class DomainNotFound(TenancyError, LookupError):  # noqa: N818 (as above)
    """The tenant has no such domain."""

    code = "domain_not_found"


class DomainExists(TenancyError):  # noqa: N818 (as above)
    """The domain belongs to another tenant: a host has one tenant at most."""

    code = "domain_exists"


class DomainNotVerified(TenancyError):  # noqa: N818 (as above)
    """The token is not the domain's: it was mistyped, or the domain was removed and added again."""

    code = "domain_not_verified"


class InvalidDomain(TenancyError, ValueError):  # noqa: N818 (as above)
    """The domain is not a host name."""

    code = "invalid_domain"


class TenantUnavailable(TenancyError):  # noqa: N818 (as above)
    """The tenant exists, and its status refuses the call."""

    code = "unavailable"


class TenantNotReady(TenantUnavailable):
    """The tenant's tables are being created, or the process that created them died."""

    code = "not_ready"


class TenantSuspended(TenantUnavailable):
    """The tenant is suspended: it refuses writes, and reads unless they are allowed."""

    code = "suspended"


class TenantArchived(TenantUnavailable):
    """The tenant is offline; its data is kept."""

    code = "archived"


class TenantDeleted(TenantUnavailable):
    """The tenant is deleted; its data is kept until it is purged."""

    code = "deleted"


class TenantOutdated(TenantUnavailable):
    """The tenant's tables lack a migration that this code needs."""

    code = "outdated"


class TenantPurged(TenantUnavailable):
    """The tenant's data is removed, or being removed."""

    code = "purged"


class QuotaExceeded(TenancyError):  # noqa: N818 (as above)
    """The tenant has recorded as much as its quota allows. Nothing was recorded.

    ``quota`` is ``events``, ``bytes`` or ``events_per_second``, and ``limit`` its value. ``retry_after`` is the number
    of seconds after which the call may be repeated; None for a total, which does not become smaller by itself.
    """

    code = "quota_exceeded"

    def __init__(
        self,
        message: str,
        *,
        quota: str,
        limit: float,
        retry_after: float | None = None,
        remedy: str = "",
        tenant: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, tenant=tenant)
        self.quota = quota
        self.limit = limit
        self.retry_after = retry_after
        self.http_status = 402 if retry_after is None else 429

    @classmethod
    def of_total(cls, slug: str, quota: str, limit: int, used: int, more: int) -> QuotaExceeded:
        """Return the error for a quota of events or bytes, of which some are used and more are needed."""
        msg = f"Tenant {slug!r} has recorded {used} of {limit} {quota}, and {more} more would exceed its quota."
        remedy = f"Raise its quota of {quota}, in its metadata (tenancy update) or where the fleet computes it."
        return cls(msg, quota=quota, limit=limit, remedy=remedy, tenant=slug)

    @classmethod
    def of_rate(cls, slug: str, limit: float, retry_after: float) -> QuotaExceeded:
        """Return the error for the quota of events per second."""
        msg = f"Tenant {slug!r} may record {limit:g} events per second, and has recorded more."
        remedy = f"Retry after {retry_after:.1f} seconds."
        return cls(msg, quota="events_per_second", limit=limit, retry_after=retry_after, remedy=remedy, tenant=slug)


class TransitionRefused(TenancyError):  # noqa: N818 (as above)
    """The action does not apply to the status that the tenant has."""

    code = "refused"


class HookFailed(TenancyError):  # noqa: N818 (as above)
    """A hook for new tenants has failed; its error is the cause. The tenant stays in provisioning."""

    code = "hook_failed"


class NoCurrentTenant(TenancyError):  # noqa: N818 (as above)
    """There is no current tenant in this context: in a thread that was started without one, for example."""

    code = "no_current_tenant"


class ReadOnlyScope(TenancyError):  # noqa: N818 (as above)
    """The tenant is open in an operator's scope, which allows no writes."""

    code = "read_only"


class RegistryMissing(TenancyError):  # noqa: N818 (as above)
    """This database has no registry."""

    code = "no_registry"


class RegistryMismatch(TenancyError):  # noqa: N818 (as above)
    """The registry's tables have an older or newer format than this version needs."""

    code = "registry_mismatch"


class RegistryUnavailable(TenancyError):  # noqa: N818 (as above)
    """The registry has been unreachable for longer than TENANCY_MAX_OUTAGE."""

    code = "unreachable"


class NotRegistered(TenancyError, LookupError):  # noqa: N818 (as above)
    """The application is not registered with this fleet."""

    code = "not_registered"


class EncodingMismatch(TenancyError):  # noqa: N818 (as above)
    """This process has another cipher or compressor than the fleet."""

    code = "encoding_mismatch"


class JobNotFound(TenancyError, LookupError):  # noqa: N818 (as above)
    """No job has this id."""

    code = "job_not_found"


class JobEnded(TenancyError):  # noqa: N818 (as above)
    """The job has ended or was cancelled, so it can be neither resumed nor cancelled."""

    code = "job_ended"


class JobNotEnded(TenancyError):  # noqa: N818 (as above)
    """The job has not ended, so it cannot be removed."""

    code = "job_not_ended"


class NotCaughtUp(TenancyError, TimeoutError):  # noqa: N818 (as above)
    """A follower has not processed the events in time, or is quarantined at one."""

    code = "not_caught_up"


class TenancyClosed(TenancyError):  # noqa: N818 (as above)
    """The Tenancy object is closed."""

    code = "closed"

    def __init__(self) -> None:
        super().__init__("This Tenancy object is closed.", remedy="Construct another one.")


class InvalidArgument(TenancyError, TypeError, ValueError):  # noqa: N818 (as above)
    """An argument has the wrong type, or a value that is not accepted: a mistake in the code that calls."""

    code = "invalid_argument"


class PartlyDone(TenancyError):  # noqa: N818 (as above)
    """Some of several tenants failed; ``failures`` has the error of each, by slug. The others are done."""

    code = "partly_done"

    def __init__(
        self, message: str, *, remedy: str = "", failures: Mapping[str, Exception] = MappingProxyType({})
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.failures = dict(failures)

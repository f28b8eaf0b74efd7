"""What can go wrong with tenants: one tree of exceptions, drawn here.

    TenancyError
    ├── TenantNotFound          no tenant has this slug
    ├── TenantExists            the slug is taken
    ├── InvalidSlug             the slug can be nobody's
    ├── TenantUnavailable       the tenant is there, and does not serve now
    │   ├── TenantNotReady      its tables are being made
    │   ├── TenantSuspended
    │   ├── TenantArchived
    │   ├── TenantDeleted       it may still be undeleted
    │   └── TenantPurged        it is gone, or going
    ├── TransitionRefused       the verb does not apply to the status that the tenant has
    ├── NoCurrentTenant         code asks for the tenant of a context that has none
    ├── RegistryMissing         the registry has not been made in this database
    ├── RegistryUnavailable     the registry cannot be reached
    ├── NotRegistered           the application is none of the fleet's
    ├── EncodingMismatch        this process has another cipher or compressor than the fleet
    ├── NotCaughtUp             a follower has not processed what it should have by now
    ├── TenancyClosed           the Tenancy object is closed
    ├── InvalidArgument         an argument has the wrong type, or a value that is not accepted
    └── PartlyDone              some of several tenants failed

Each has a ``code`` for programs, a ``remedy`` for people, and the ``tenant`` that it is about (a slug, an id, or
None). A message names that one tenant and never another, no password, no SQL and no parameters. Mistakes in settings
are ``eventsourcing_sqlalchemy.errors.SettingsError``, as in the persistence module.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

__all__ = [
    "EncodingMismatch",
    "InvalidArgument",
    "InvalidSlug",
    "NoCurrentTenant",
    "NotCaughtUp",
    "NotRegistered",
    "PartlyDone",
    "RegistryMissing",
    "RegistryUnavailable",
    "TenancyClosed",
    "TenancyError",
    "TenantArchived",
    "TenantDeleted",
    "TenantExists",
    "TenantNotFound",
    "TenantNotReady",
    "TenantPurged",
    "TenantSuspended",
    "TenantUnavailable",
    "TransitionRefused",
]


class TenancyError(Exception):
    """The base of all errors of this package; ``str()`` is the message and, where there is one, the remedy."""

    code: ClassVar[str] = "failed"

    def __init__(self, message: str, *, remedy: str = "", tenant: str | None = None) -> None:
        super().__init__(f"{message} {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy
        self.tenant = tenant


class TenantNotFound(TenancyError, LookupError):  # noqa: N818 (what happened, as a caller reads it)
    """No tenant has this slug."""

    code = "not_found"


class TenantExists(TenancyError):  # noqa: N818 (as above)
    """The slug is taken: two customers must never share a tenant."""

    code = "exists"


class InvalidSlug(TenancyError, ValueError):  # noqa: N818 (as above)
    """The slug can be nobody's: it is empty, too long, or has a character that cannot be seen or told apart."""

    code = "invalid_slug"


class TenantUnavailable(TenancyError):  # noqa: N818 (as above)
    """The tenant is there, and does not serve now."""

    code = "unavailable"


class TenantNotReady(TenantUnavailable):
    """The tenant's tables are being made, or a process that made them has died."""

    code = "not_ready"


class TenantSuspended(TenantUnavailable):
    """The tenant is suspended: nothing can be recorded, and perhaps nothing read."""

    code = "suspended"


class TenantArchived(TenantUnavailable):
    """The tenant is off-line; its data is kept."""

    code = "archived"


class TenantDeleted(TenantUnavailable):
    """The tenant is deleted; its data is kept for some time."""

    code = "deleted"


class TenantPurged(TenantUnavailable):
    """The tenant and its data are gone, or are being removed."""

    code = "purged"


class TransitionRefused(TenancyError):  # noqa: N818 (as above)
    """The verb does not apply to the status that the tenant has."""

    code = "refused"


class NoCurrentTenant(TenancyError):  # noqa: N818 (as above)
    """There is no current tenant in this context: in a thread that was started without one, for example."""

    code = "no_current_tenant"


class RegistryMissing(TenancyError):  # noqa: N818 (as above)
    """The registry has not been made in this database."""

    code = "no_registry"


class RegistryUnavailable(TenancyError):  # noqa: N818 (as above)
    """The registry cannot be reached, for longer than what was known may be trusted."""

    code = "unreachable"


class NotRegistered(TenancyError, LookupError):  # noqa: N818 (as above)
    """The application is none of those that the tenants have."""

    code = "not_registered"


class EncodingMismatch(TenancyError):  # noqa: N818 (as above)
    """This process has another cipher or compressor than the events of the fleet's tenants are stored with."""

    code = "encoding_mismatch"


class NotCaughtUp(TenancyError, TimeoutError):  # noqa: N818 (as above)
    """A follower has not processed what it should have by now, or has stopped at an event and never will."""

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

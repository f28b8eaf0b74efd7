"""One part of a tenant's migration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from tenancy.migrations.running import HEADS

if TYPE_CHECKING:
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant
    from tenancy.operations.jobs import JobItem

__all__ = ["Part"]


class Part(ABC):
    """One part of a tenant's migration, constructed once in each process that executes items.

    ``lock_timeout`` is in seconds: how long one attempt waits for a lock while writers queue behind it. ``target`` is
    the revision that the user's migrations go to.
    """

    def __init__(self, fleet: Fleet, *, lock_timeout: float, actor: str | None = None, target: str = HEADS) -> None:
        self.fleet = fleet
        self.lock_timeout = lock_timeout
        self.actor = actor
        self.target = target

    @abstractmethod
    def is_behind(self, tenant: Tenant) -> str | None:
        """Return what :meth:`apply` would do in one line, or None for a tenant that needs nothing.

        It reads memory only: the tenant, whose versions the registry has recorded, and the code.
        """

    @abstractmethod
    def apply(self, tenant: Tenant, item: JobItem) -> None:
        """Migrate a tenant and record its new versions.

        It is called again after a failure, and after a process was killed at any point.
        """

"""The verbs of a fleet that change or remove a tenant which there is, as :class:`Tenancy` has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Generic, TypeVar, cast

from tenancy.errors import TenancyClosed
from tenancy.lifecycle.provisioning import Provisioning
from tenancy.lifecycle.purging import PurgeCertificate, Purging
from tenancy.lifecycle.transitions import Transitions
from tenancy.model.tenant import Tenant, TenantStatus, Verb
from tenancy.registry import Registry
from tenancy.registry.cache import RegistryCache

__all__ = ["Verbs"]

_T = TypeVar("_T")


class WhileOpen(Generic[_T]):
    """An attribute of a fleet that raises TenancyClosed after close(): what it holds may go on serving other fleets."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, fleet: Verbs, value: _T) -> None:
        fleet.__dict__[self._name] = value

    def __get__(self, fleet: Verbs, owner: type) -> _T:
        if fleet.is_closed:
            raise TenancyClosed
        return cast("_T", fleet.__dict__[self._name])


class Verbs(ABC):
    """What can be done to a tenant. It is given by its slug, which means who has that now, or as a Tenant, which means
    that one. All raise TenantNotFound, and TransitionRefused where a verb does not apply; ``actor`` is the id of who
    does it, for the history.
    """

    registry = WhileOpen[Registry]()
    """What is known of the tenants."""
    _registry_cache = WhileOpen[RegistryCache]()
    _provisioning = WhileOpen[Provisioning]()
    _transitions = WhileOpen[Transitions]()
    _purging = WhileOpen[Purging]()
    is_closed = False
    """Whether close() has been called."""

    @abstractmethod
    def _bound(self, tenant: Tenant) -> Tenant:
        """Return a tenant that knows what it was asked for at."""

    def rename(
        self, tenant: str | Tenant, new_slug: str | None = None, *, name: str | None = None, actor: str | None = None
    ) -> Tenant:
        """Give a tenant another slug, another name or both. Its id and its tables keep their names."""
        return self._bound(self._transitions.rename(tenant, new_slug, name, actor))

    def suspend(
        self, tenant: str | Tenant, *, reason: str | None = None, reads: bool | None = None, actor: str | None = None
    ) -> Tenant:
        """Let a tenant record nothing, and read only with ``reads``; in force everywhere within a second.

        ``reason`` is shown to whoever is refused in a process, and never over HTTP. Of a tenant that is suspended
        already, what is None stays as it is.
        """
        return self._bound(self._transitions.move(tenant, Verb.SUSPEND, actor, reason=reason, reads=reads))

    def resume(self, tenant: str | Tenant, *, actor: str | None = None) -> Tenant:
        """Let a suspended tenant serve again."""
        return self._bound(self._transitions.move(tenant, Verb.RESUME, actor))

    def archive(self, tenant: str | Tenant, *, reason: str | None = None, actor: str | None = None) -> Tenant:
        """Take a tenant off-line and keep its data."""
        return self._bound(self._transitions.move(tenant, Verb.ARCHIVE, actor, reason=reason))

    def restore(self, tenant: str | Tenant, *, actor: str | None = None) -> Tenant:
        """Give an archived tenant the status that it had before."""
        return self._bound(self._transitions.move(tenant, Verb.RESTORE, actor))

    def delete(self, tenant: str | Tenant, *, reason: str | None = None, actor: str | None = None) -> Tenant:
        """Take a tenant off-line. It can be undeleted for TENANCY_GRACE_DAYS, and longer if nobody purges it."""
        return self._bound(self._transitions.move(tenant, Verb.DELETE, actor, reason=reason))

    def undelete(self, tenant: str | Tenant, *, actor: str | None = None) -> Tenant:
        """Give a deleted tenant the status that it had before."""
        return self._bound(self._transitions.move(tenant, Verb.UNDELETE, actor))

    def purge(self, tenant: str | Tenant, *, actor: str | None = None) -> PurgeCertificate:
        """Remove a tenant and all its data, now and for ever; return what proves it.

        A slug means who has it now, whatever its status. A Tenant means that one, if its status is still the same:
        raises TransitionRefused when it has been undeleted, for example.
        """
        (certificate,) = self._purging.purge([tenant], actor)
        return certificate

    def purge_many(self, tenants: Sequence[str | Tenant], *, actor: str | None = None) -> Iterator[PurgeCertificate]:
        """Purge tenants as :func:`purge` does, and yield the certificate of each."""
        yield from self._purging.purge(tenants, actor)

    def due(self) -> Sequence[Tenant]:
        """Return the deleted tenants whose grace is over."""
        now = datetime.now(UTC)
        deleted = self.registry.list(TenantStatus.DELETED)
        return [self._bound(tenant) for tenant in deleted if tenant.due_at is not None and tenant.due_at <= now]

"""Domains: custom host names of tenants. Any tenant may claim a host; it leads to the one that proves to own it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import IntegrityError

from tenancy.arguments import check_type
from tenancy.errors import DomainExists, DomainNotFound, DomainNotVerified
from tenancy.model.domains import Domain, normalize_domain
from tenancy.model.tenant import Action, Tenant, TenantStatus, check_status
from tenancy.registry.domain_store import DomainStore
from tenancy.registry.lookup import find_tenant, one_tenant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.registry.cache import RegistryCache

__all__ = ["Domains"]

_TOKEN_BYTES: Final = 24


class Domains:
    """The domains of a fleet's tenants. Safe to use from many threads and processes.

    A change is in force in every process within a second. ``host`` may be written in any way: the port, letter case and
    a trailing dot are ignored, and Unicode is encoded as browsers do it. All methods raise InvalidDomain for a text
    that is not a host name.
    """

    def __init__(
        self, registry_cache: RegistryCache, changed: Callable[[Tenant], None], bound: Callable[[Tenant], Tenant]
    ) -> None:
        self._cache = registry_cache
        self._registry = registry_cache.registry
        self._store = DomainStore(self._registry)
        self._changed = changed
        self._bound = bound

    def add(self, tenant: Tenant | str, host: str, *, actor: str | None = None) -> Domain:
        """Claim a host for a tenant, and return it with the token that proves its ownership; idempotent.

        It does not lead to the tenant before :meth:`verify`. Raises DomainExists for a host that leads to another one.
        """
        name = normalize_domain(host)
        with one_tenant(self._registry, tenant) as (session, found):
            if found.status is TenantStatus.PURGING:
                check_status(found, writes=False)
            known = self._store.find(session, found.id, name)
            if known is not None:
                return known
            if self._store.is_serving(session, name):
                raise _taken(name)
            token = secrets.token_urlsafe(_TOKEN_BYTES)
            domain = Domain(host=name, tenant_id=found.id, token=token, created_at=datetime.now(UTC))
            self._store.add(session, domain)
            self._registry.change(session, [found], Action.ADD_DOMAIN, actor, remark=name)
        self._changed(found)
        return domain

    def list(self, tenant: Tenant | str | None = None) -> Sequence[Domain]:
        """Return the domains of a tenant, or without one those of all, in order of their hosts."""
        if tenant is None:
            return self._store.list()
        return self._store.list(self._tenant(tenant).id)

    def get(self, tenant: Tenant | str, host: str) -> Domain:
        """Return a domain of a tenant with its current token. Raises DomainNotFound."""
        name, found = normalize_domain(host), self._tenant(tenant)
        with self._registry.reading() as session:
            return self._find(session, found, name)

    def _tenant(self, tenant: Tenant | str) -> Tenant:
        check_type("The tenant", tenant, (str, Tenant), "its slug or a Tenant")
        return find_tenant(self._registry, tenant) if isinstance(tenant, str) else tenant

    def verify(self, tenant: Tenant | str, host: str, token: str, *, actor: str | None = None) -> Domain:
        """Let a host lead to a tenant; idempotent. ``token`` is what you have found where only its owner can put it.

        Raises DomainNotFound, DomainNotVerified for any other text than the domain's current token, and DomainExists
        for a host that belongs to another tenant.
        """
        check_type("The token", token, str, "the text that you have found, such as the value of a TXT record")
        name = normalize_domain(host)
        try:
            with one_tenant(self._registry, tenant) as (session, found):
                domain = self._find(session, found, name)
                if not compare_digest(token.encode(errors="replace"), domain.token.encode()):
                    msg = f"The token is not that of the domain {name!r} of tenant {found.slug!r}."
                    remedy = f"See the current one: tenancy domains list {found.slug}"
                    raise DomainNotVerified(msg, remedy=remedy, tenant=found.slug)
                if domain.is_verified:
                    return domain
                verified = replace(domain, verified_at=self._store.verify(session, domain))
                self._registry.change(session, [found], Action.VERIFY_DOMAIN, actor, remark=name)
        except IntegrityError:
            raise _taken(name) from None
        self._changed(found)
        return verified

    def remove(self, tenant: Tenant | str, host: str, *, actor: str | None = None) -> Domain:
        """Remove a domain of a tenant, and return it. Raises DomainNotFound.

        Adding it again, for this or another tenant, gives it another token.
        """
        name = normalize_domain(host)
        with one_tenant(self._registry, tenant) as (session, found):
            domain = self._find(session, found, name)
            self._store.remove(session, domain)
            self._registry.change(session, [found], Action.REMOVE_DOMAIN, actor, remark=name)
        self._changed(found)
        return domain

    def _find(self, session: Session, tenant: Tenant, host: str) -> Domain:
        domain = self._store.find(session, tenant.id, host)
        if domain is None:
            msg = f"Tenant {tenant.slug!r} has no domain {host!r}."
            remedy = f"See its domains: tenancy domains list {tenant.slug}"
            raise DomainNotFound(msg, remedy=remedy, tenant=tenant.slug)
        return domain

    def find(self, host: str) -> Tenant | None:
        """Return the tenant that a host leads to, whatever its status, or None.

        From memory, except for the first call and after changes.
        """
        tenant = self._cache.find_domain(normalize_domain(host))
        return None if tenant is None else self._bound(tenant)


def _taken(host: str) -> DomainExists:
    return DomainExists(f"The domain {host!r} belongs to another tenant.", remedy="Remove it there first.")

"""The rows of tenants' domains. A host may be claimed by many tenants, and leads to one at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa

from tenancy.model.domains import Domain

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.registry.registry import Registry

__all__ = ["DomainStore"]

_PAGE: Final = 500


class DomainStore:
    """The domains in a registry. Safe to use from many threads. Changes are part of a session of the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table = registry.rows.domains

    def list(self, tenant_id: UUID | None = None) -> Sequence[Domain]:
        """Return the domains of a tenant, or of all, in order of their hosts."""
        table = self._table
        query = sa.select(table).order_by(table.c.host, table.c.tenant_id)
        if tenant_id is not None:
            query = query.where(table.c.tenant_id == tenant_id)
        with self._registry.reading() as session:
            return [_to_domain(row) for row in session.execute(query)]

    def serving(self, tenant_ids: Sequence[UUID] | None = None) -> Iterator[tuple[str, UUID]]:
        """Yield the verified hosts of some tenants, or of all, each with its tenant's id."""
        table = self._table
        query = sa.select(table.c.serving_host, table.c.tenant_id).where(table.c.serving_host.is_not(None))
        with self._registry.reading() as session:
            if tenant_ids is None:
                yield from (tuple(row) for row in session.execute(query))
                return
            for start in range(0, len(tenant_ids), _PAGE):
                some = table.c.tenant_id.in_(tenant_ids[start : start + _PAGE])
                yield from (tuple(row) for row in session.execute(query.where(some)))

    def find(self, session: Session, tenant_id: UUID, host: str) -> Domain | None:
        """Return a tenant's domain, or None."""
        row = session.execute(sa.select(self._table).where(*self._is(tenant_id, host))).first()
        return None if row is None else _to_domain(row)

    def is_serving(self, session: Session, host: str) -> bool:
        """Return whether a host leads to a tenant."""
        query = sa.select(sa.func.count()).select_from(self._table).where(self._table.c.serving_host == host)
        return bool(session.scalar(query))

    def add(self, session: Session, domain: Domain) -> None:
        """Add a domain that is not verified."""
        values = {name: getattr(domain, name) for name in ("tenant_id", "host", "token", "created_at")}
        session.execute(sa.insert(self._table).values(values))

    def verify(self, session: Session, domain: Domain) -> datetime:
        """Let a host lead to its tenant; return the time. Raises IntegrityError when it leads to another one."""
        now = datetime.now(UTC)
        values = {"serving_host": domain.host, "verified_at": now}
        session.execute(sa.update(self._table).where(*self._is(domain.tenant_id, domain.host)).values(values))
        return now

    def remove(self, session: Session, domain: Domain) -> None:
        """Delete a domain."""
        session.execute(sa.delete(self._table).where(*self._is(domain.tenant_id, domain.host)))

    def _is(self, tenant_id: UUID, host: str) -> tuple[sa.ColumnElement[bool], ...]:
        return self._table.c.tenant_id == tenant_id, self._table.c.host == host


def _to_domain(row: Any) -> Domain:
    return Domain(
        host=row.host,
        tenant_id=row.tenant_id,
        token=row.token,
        created_at=row.created_at,
        verified_at=row.verified_at,
    )

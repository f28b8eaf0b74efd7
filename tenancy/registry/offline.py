"""How long a tenant has been offline, by the database's clock: a purge need not wait for what is over.

The time is taken in a transaction of its own after the one that takes the tenant offline. So it is never earlier than
the moment from which other processes could see the change, however long that transaction took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from eventsourcing.persistence import PersistenceError

from tenancy.errors import TenancyError
from tenancy.model.tenant import Tenant, TenantStatus

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.registry.registry import Registry

__all__ = ["forget_offline", "record_offline", "seconds_offline"]

# Not suspended: whether it can be read may change without a change of status.
_OFFLINE: Final = (TenantStatus.ARCHIVED, TenantStatus.DELETED)


def record_offline(registry: Registry, tenant: Tenant) -> None:
    """Record that a tenant is offline from now on, if it is; its change of status must be committed.

    Never raises for a database that fails: without the record, a purge waits longer.
    """
    if tenant.status not in _OFFLINE:
        return
    offline = registry.rows.offline
    values = {"tenant_id": tenant.id, "changed_at": tenant.changed_at, "since": _now(registry)}
    try:
        with registry.writing_rows() as session:
            forget_offline(registry, session, tenant)
            session.execute(sa.insert(offline).values(values))
    except (PersistenceError, TenancyError):
        return


def forget_offline(registry: Registry, session: Session, tenant: Tenant) -> None:
    """Delete the record of a tenant."""
    offline = registry.rows.offline
    session.execute(sa.delete(offline).where(offline.c.tenant_id == tenant.id))


def seconds_offline(registry: Registry, session: Session, tenant: Tenant) -> float:
    """Return for how long a locked tenant has certainly been offline: since its last change of status, or 0."""
    if tenant.status not in _OFFLINE:
        return 0.0
    offline = registry.rows.offline
    # Processes of earlier versions change the status without this record.
    is_current = sa.and_(offline.c.tenant_id == tenant.id, offline.c.changed_at == tenant.changed_at)
    seconds = session.scalar(sa.select(_now(registry) - offline.c.since).where(is_current))
    return max(0.0, seconds or 0.0)


def _now(registry: Registry) -> sa.ColumnElement[float]:
    return sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)

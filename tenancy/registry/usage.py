"""The counts of tenants' events in the registry: what rollups have counted, and up to which notification id."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy.errors import sqlstate
from tenancy.model.usage import Count

if TYPE_CHECKING:
    from tenancy.registry.registry import Registry

__all__ = ["Advance", "CountKey", "CountStore"]

CountKey = tuple[UUID, str]
"""A tenant's id and the name of one of its applications."""

Advance = tuple[int | None, Count]
"""The position that a count was advanced from, None for a new count; and the count."""

_INSUFFICIENT_PRIVILEGE: Final = "42501"
# Tenants at a time: their rows are locked while the counts are written.
_BATCH: Final = 200
# Longer lists of ids take longer than reading all counts.
_MANY: Final = 500


class CountStore:
    """All tenants' counts. Safe to use from many threads and processes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table = registry.rows.usage

    def read(self, tenant_ids: Collection[UUID]) -> dict[CountKey, Count]:
        """Return the counts of tenants, with one query."""
        query = sa.select(self._table)
        if len(tenant_ids) <= _MANY:
            query = query.where(self._table.c.tenant_id.in_(tenant_ids))
        with self._registry.reading() as session:
            return {(row.tenant_id, row.application): _to_count(row) for row in session.execute(query)}

    def advance(self, advances: Mapping[CountKey, Advance]) -> set[CountKey]:
        """Store advanced counts, each unless another process has advanced it since; return those that are stored.

        The counts of purged tenants are discarded. So are, for now, those of tenants whose rows another transaction
        locks: nothing waits for such a lock, and a later rollup counts the same events. A role without the right to
        write stores nothing.
        """
        stored: set[CountKey] = set()
        ids = sorted({tenant_id for tenant_id, _ in advances})
        for start in range(0, len(ids), _BATCH):
            some = set(ids[start : start + _BATCH])
            try:
                stored |= self._advance({key: each for key, each in advances.items() if key[0] in some})
            except PersistenceError as error:
                if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
                    raise
                break
        return stored

    def _advance(self, advances: Mapping[CountKey, Advance]) -> set[CountKey]:
        table, tenants = self._table, self._registry.rows.tenants
        ids = sorted({tenant_id for tenant_id, _ in advances})
        with self._registry.writing_rows() as session:
            # The locks delay a purge, which then deletes these counts, too; and other rollups of the same tenants.
            lock = sa.select(tenants.c.id).where(tenants.c.id.in_(ids)).order_by(tenants.c.id)
            locked = set(session.scalars(lock.with_for_update(key_share=True, skip_locked=True)))
            rows = session.execute(
                sa.select(table.c.tenant_id, table.c.application, table.c.position).where(table.c.tenant_id.in_(locked))
            )
            positions = {(row.tenant_id, row.application): row.position for row in rows}
            current = {
                key: count
                for key, (position, count) in advances.items()
                if key[0] in locked and positions.get(key) == position
            }
            new = [_to_row(key, count) for key, count in current.items() if key not in positions]
            if new:
                session.execute(sa.insert(table), new)
            changed = [_to_row(key, count) for key, count in current.items() if key in positions]
            if changed:
                session.connection().execute(
                    sa.update(table).where(
                        table.c.tenant_id == sa.bindparam("of_tenant"),
                        table.c.application == sa.bindparam("of_application"),
                    ),
                    [
                        {"of_tenant": row.pop("tenant_id"), "of_application": row.pop("application"), **row}
                        for row in changed
                    ],
                )
        return set(current)


def _to_row(key: CountKey, count: Count) -> dict[str, Any]:
    return {"tenant_id": key[0], "application": key[1], **asdict(count)}


def _to_count(row: Any) -> Count:
    return Count(**{name: getattr(row, name) for name in Count.__dataclass_fields__})

"""The record of hooks for new tenants: which have run for a tenant, and why one has failed. No values, no messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from eventsourcing_sqlalchemy.errors import describe, frames_of

if TYPE_CHECKING:
    from tenancy.registry.registry import Registry

__all__ = ["HookRun", "HookRuns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRun:
    """What is recorded of a hook for one tenant."""

    tenant_id: UUID
    hook: str
    attempts: int
    error: str | None
    """The error class of the last attempt, with the database's error code."""
    frames: Sequence[str]
    """The stack frames as module:function:line, innermost last."""
    started_at: datetime
    finished_at: datetime | None
    """The marker: from then on, the hook does not run again for this tenant."""

    def __str__(self) -> str:
        if self.finished_at is not None:
            return f"hook {self.hook!r} has run"
        where = f" at {self.frames[-1]}" if self.frames else ""
        what = "was started" if self.error is None else f"failed ({self.error}{where})"
        return f"hook {self.hook!r} {what}, attempt {self.attempts}"


class HookRuns:
    """The hook runs of all tenants. Safe to use from many threads and processes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table = registry.rows.hook_runs

    def of(self, tenant_ids: Iterable[UUID]) -> dict[tuple[UUID, str], HookRun]:
        """Return the recorded runs of some tenants, by tenant id and hook."""
        wanted = list(tenant_ids)
        found: dict[tuple[UUID, str], HookRun] = {}
        with self._registry.reading() as session:
            for start in range(0, len(wanted), 500):
                some = self._table.c.tenant_id.in_(wanted[start : start + 500])
                for row in session.execute(sa.select(self._table).where(some).order_by(self._table.c.started_at)):
                    found[row.tenant_id, row.hook] = HookRun(**row._mapping)  # noqa: SLF001 (public in spite of its name)
        return found

    def start(self, tenant_id: UUID, hook: str) -> None:
        """Record that a hook starts for a tenant."""
        values: dict[str, Any] = {"error": None, "frames": [], "started_at": datetime.now(UTC)}
        with self._registry.locked(tenant_id) as (session, tenants):
            if tenants:  # not purged
                table = self._table
                found: Any = session.execute(
                    sa.update(table).where(self._is(tenant_id, hook)).values(attempts=table.c.attempts + 1, **values)
                )
                if not found.rowcount:
                    session.execute(sa.insert(table).values(tenant_id=tenant_id, hook=hook, attempts=1, **values))

    def fail(self, tenant_id: UUID, hook: str, error: BaseException) -> None:
        """Record why a hook has failed."""
        self._update(tenant_id, hook, error=describe(error), frames=frames_of(error))

    def finish(self, tenant_id: UUID, hook: str) -> None:
        """Record that a hook has run."""
        self._update(tenant_id, hook, finished_at=datetime.now(UTC))

    def _update(self, tenant_id: UUID, hook: str, **values: Any) -> None:
        with self._registry.writing_rows() as session:
            session.execute(sa.update(self._table).where(self._is(tenant_id, hook)).values(values))

    def _is(self, tenant_id: UUID, hook: str) -> sa.ColumnElement[bool]:
        return sa.and_(self._table.c.tenant_id == tenant_id, self._table.c.hook == hook)

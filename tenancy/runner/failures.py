"""Failures of followers, reduced to what may leave the tenant's own tables.

A failure holds the tenant, the follower, the notification id, the error class with the database's error code, and the
stack frames. It never holds the event, its values, or the error message, because a message may contain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa

from eventsourcing_sqlalchemy.errors import describe, frames_of, sqlstate

if TYPE_CHECKING:
    from tenancy.registry import Registry
    from tenancy.runner.ready_queue import Key

__all__ = ["Failure", "FailureStore", "failure_of", "outage_of", "retry_delay"]

_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 30.0
# Enough to reach the maximum. Without a limit, the power would overflow a float.
_MAX_DOUBLINGS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A notification that a tenant's follower could not process."""

    tenant_id: UUID
    follower: str
    leader: str
    notification_id: int | None
    """None when it failed before reading one, for example because its tables are missing."""
    error: str
    """The error class, with the database's error code: an SQLSTATE, or the error name on SQLite."""
    frames: Sequence[str]
    """The stack frames as module:function:line, innermost last."""
    attempts: int
    first_at: datetime
    last_at: datetime
    is_quarantined: bool
    """Whether it is retried only after an explicit request."""

    @property
    def key(self) -> Key:
        """The follower's key in the ready queue."""
        return self.tenant_id, self.follower

    @property
    def where(self) -> str:
        """Where it failed, as a phrase for messages."""
        if self.notification_id is None:
            return "before reading a notification"
        return f"at notification {self.notification_id}"


def failure_of(
    error: BaseException,
    key: Key,
    leader: str,
    notification_id: int | None,
    before: Failure | None,
    *,
    max_attempts: int,
) -> Failure:
    """Return the failure for an error; ``before`` is the follower's previous failure, whose attempts it continues.

    Only a failure at a notification is quarantined. Without a notification, as with a missing table, it is retried
    until it succeeds.
    """
    is_same = before is not None and (before.leader, before.notification_id) == (leader, notification_id)
    now = datetime.now(UTC)
    attempts = before.attempts + 1 if before is not None and is_same else 1
    return Failure(
        tenant_id=key[0],
        follower=key[1],
        leader=leader,
        notification_id=notification_id,
        error=describe(error),
        frames=frames_of(error),
        attempts=attempts,
        first_at=before.first_at if before is not None and is_same else now,
        last_at=now,
        is_quarantined=notification_id is not None and attempts >= max_attempts,
    )


# By SQLSTATE, or by its class: the first two characters.
_OUTAGES: Final = {
    "08": "the connection failed",
    "25006": "the server is read-only",
    "53300": "the server accepts no more connections",
    "57P01": "the server is shutting down",
    "57P02": "the server has crashed",
    "57P03": "the server is starting up",
}


def outage_of(error: BaseException) -> str:
    """Describe an outage: the error class, its SQLSTATE, and the meaning of that code."""
    code = sqlstate(error)
    if code is None:
        return type(error).__name__
    meaning = _OUTAGES.get(code) or _OUTAGES.get(code[:2])
    return f"{type(error).__name__}, SQLSTATE {code}" + (f": {meaning}" if meaning else "")


def retry_delay(attempts: int) -> float:
    """Return the seconds to wait after that many failed attempts."""
    return float(min(_FIRST_DELAY * 2 ** min(attempts - 1, _MAX_DOUBLINGS), _MAX_DELAY))


class FailureStore:
    """All tenants' failures, stored in the registry. Safe to use from many threads and processes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table = registry.rows.failures

    def all(self) -> dict[Key, Failure]:
        """Return all failures, with one query."""
        with self._registry.reading() as session:
            return {row.key: row for row in map(_to_failure, session.execute(sa.select(self._table)))}

    def get(self, key: Key) -> Failure | None:
        """Return a follower's current failure, or None."""
        with self._registry.reading() as session:
            row = session.execute(sa.select(self._table).where(self._is(key))).first()
            return None if row is None else _to_failure(row)

    def record(self, failure: Failure) -> bool:
        """Store a failure, replacing the follower's earlier one. A purged tenant's failure is discarded.

        Return False without storing it when another transaction holds the tenant's row lock. Waiting for that lock
        would also block other registry work of this process.
        """
        tenants, table = self._registry.rows.tenants, self._table
        values = {name: getattr(failure, name) for name in Failure.__dataclass_fields__}
        alive = sa.select(tenants.c.id).where(tenants.c.id == failure.tenant_id)
        with self._registry.writing_rows() as session:
            # The lock delays a purge until this transaction ends. The purge then deletes this failure, too.
            kept = alive.with_for_update(read=True, key_share=True, skip_locked=True)
            if session.execute(kept).first() is None:
                return session.execute(alive).first() is None
            session.execute(sa.delete(table).where(self._is(failure.key)))
            session.execute(sa.insert(table).values(**values))
            return True

    def clear(self, key: Key) -> bool:
        """Delete a failure; return whether it existed."""
        with self._registry.writing_rows() as session:
            return self.clear_in(session, key)

    def clear_in(self, session: Any, key: Key) -> bool:
        """Do the same as :meth:`clear`, inside a registry transaction."""
        return bool(session.execute(sa.delete(self._table).where(self._is(key))).rowcount)

    def _is(self, key: Key) -> sa.ColumnElement[bool]:
        return sa.and_(self._table.c.tenant_id == key[0], self._table.c.follower == key[1])


def _to_failure(row: Any) -> Failure:
    failure = Failure(**{name: getattr(row, name) for name in Failure.__dataclass_fields__})
    return replace(failure, frames=tuple(failure.frames))

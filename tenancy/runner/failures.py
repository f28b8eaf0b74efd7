"""What stopped a follower, as far as it may be known outside of the tenant's own tables.

Kept are the tenant, the follower, the number of the notification, the class of the error with the code of the database,
and where it came from. Never the event, its values, or what the error says: that may contain them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa

from eventsourcing_sqlalchemy.errors import describe, sqlstate

if TYPE_CHECKING:
    from tenancy.registry import Registry
    from tenancy.runner.ready_queue import Key

__all__ = ["Failure", "FailureStore", "failure_of", "frames_of", "outage_of"]

_FRAMES: Final = 20
_MAX_NAME: Final = 200
# A module can be given any name at run time, also one that holds a value.
_NO_NAME: Final = re.compile(r"[^\w.<>]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """That a follower of a tenant could not process a notification."""

    tenant_id: UUID
    follower: str
    leader: str
    notification_id: int | None
    """None when it failed before it had a notification: its tables are missing, for example."""
    error: str
    """The class of the error, and the code that a database gave for it: the SQLSTATE, or what SQLite calls it."""
    frames: Sequence[str]
    """Where it came from, the innermost last: module:function:line."""
    attempts: int
    first_at: datetime
    last_at: datetime
    is_quarantined: bool
    """Whether it is tried no more until somebody says so."""

    @property
    def key(self) -> Key:
        """Who failed."""
        return self.tenant_id, self.follower

    @property
    def where(self) -> str:
        """At what it failed, as sentences say it."""
        if self.notification_id is None:
            return "before it has a notification"
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
    """Return what is kept of an error; ``before`` is the failure that this one is a repetition of.

    Only a notification can be given up. What fails before there is one, such as a missing table, is about none of them.
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


def frames_of(error: BaseException) -> list[str]:
    """Return where an error came from, the innermost last, as module:function:line."""
    frames, traceback = [], error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        module = frame.f_globals.get("__name__", "")
        frames.append(_NO_NAME.sub("", f"{module}")[:_MAX_NAME] + f":{frame.f_code.co_qualname}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return frames[-_FRAMES:]


# By the SQLSTATE, or its class, that the server gave.
_OUTAGES: Final = {
    "08": "the connection failed",
    "25006": "the server is read-only",
    "53300": "the server accepts no more connections",
    "57P01": "the server is shutting down",
    "57P02": "the server has crashed",
    "57P03": "the server is starting up",
}


def outage_of(error: BaseException) -> str:
    """Return what keeps a database from serving: the class of the error, its SQLSTATE, and what that means."""
    code = sqlstate(error)
    if code is None:
        return type(error).__name__
    meaning = _OUTAGES.get(code) or _OUTAGES.get(code[:2])
    return f"{type(error).__name__}, SQLSTATE {code}" + (f": {meaning}" if meaning else "")


class FailureStore:
    """The failures of all tenants, in the control database. Safe to use from many threads and processes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._table = registry.rows.failures

    def all(self) -> dict[Key, Failure]:
        """Return all failures; one query."""
        with self._registry.reading() as session:
            return {row.key: row for row in map(_to_failure, session.execute(sa.select(self._table)))}

    def get(self, key: Key) -> Failure | None:
        """Return what a follower has met last, or None when it goes well."""
        with self._registry.reading() as session:
            row = session.execute(sa.select(self._table).where(self._is(key))).first()
            return None if row is None else _to_failure(row)

    def record(self, failure: Failure) -> bool:
        """Keep a failure in the place of an earlier one of the same follower; nothing of a tenant that is gone.

        Returns False when the tenant's row is locked: that is not waited for, as others would have to wait too.
        """
        tenants, table = self._registry.rows.tenants, self._table
        values = {name: getattr(failure, name) for name in Failure.__dataclass_fields__}
        alive = sa.select(tenants.c.id).where(tenants.c.id == failure.tenant_id)
        with self._registry.writing_rows() as session:
            # Its row cannot be removed until this transaction has ended, and then takes this one with it.
            kept = alive.with_for_update(read=True, key_share=True, skip_locked=True)
            if session.execute(kept).first() is None:
                return session.execute(alive).first() is None
            session.execute(sa.delete(table).where(self._is(failure.key)))
            session.execute(sa.insert(table).values(**values))
            return True

    def clear(self, key: Key) -> bool:
        """Forget a failure; return whether there was one."""
        with self._registry.writing_rows() as session:
            return self.clear_in(session, key)

    def clear_in(self, session: Any, key: Key) -> bool:
        """Do as :func:`clear` in a transaction of the registry."""
        return bool(session.execute(sa.delete(self._table).where(self._is(key))).rowcount)

    def _is(self, key: Key) -> sa.ColumnElement[bool]:
        return sa.and_(self._table.c.tenant_id == key[0], self._table.c.follower == key[1])


def _to_failure(row: Any) -> Failure:
    failure = Failure(**{name: getattr(row, name) for name in Failure.__dataclass_fields__})
    return replace(failure, frames=tuple(failure.frames))

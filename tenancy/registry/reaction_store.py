"""How far each reaction has come in the registry's log, and for which tenants it fails. No values, no messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError

from eventsourcing_sqlalchemy.errors import describe, frames_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.registry.registry import Registry

__all__ = ["ReactionFailure", "ReactionStore"]

_FIRST_DELAY: Final = 1.0
_MAX_DELAY: Final = 3600.0
# Enough to reach the maximum. Without a limit, the power would overflow a float.
_MAX_DOUBLINGS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactionFailure:
    """A change of a tenant for which a reaction fails. Later changes of this tenant wait behind it."""

    tenant_id: UUID
    reaction: str
    number: int
    """The number of the change in the tenant's history."""
    last_number: int
    """The number of the last change that waits."""
    error: str
    """The error class, with the database's error code."""
    frames: Sequence[str]
    """The stack frames as module:function:line, innermost last."""
    attempts: int
    first_at: datetime
    last_at: datetime


class ReactionStore:
    """The positions and failures of all reactions. Safe to use from many threads and processes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._positions = registry.rows.reactions
        self._failures = registry.rows.reaction_failures
        self._now: sa.ColumnElement[float] = sa.literal_column(registry.datastore.dialect.id_sequences.epoch_seconds)

    # -- positions --

    def positions(self) -> dict[str, int]:
        """Return the position of each recorded reaction."""
        with self._registry.reading() as session:
            rows = session.execute(sa.select(self._positions).order_by(self._positions.c.name))
            return {row.name: row.position for row in rows}

    def add(self, name: str, position: int) -> None:
        """Record a reaction to the changes after a position, unless it is recorded already."""
        try:
            with self._registry.writing_rows() as session:
                session.execute(sa.insert(self._positions).values(name=name, position=position))
        except IntegrityError:
            return

    def advance(self, name: str, position: int) -> None:
        """Record that a reaction has passed a position."""
        with self._registry.writing_rows() as session:
            self._advance(session, name, position)

    def _advance(self, session: Session, name: str, position: int) -> None:
        # A process that was paused while another one has taken over must not set it back.
        mine = sa.and_(self._positions.c.name == name, self._positions.c.position < position)
        session.execute(sa.update(self._positions).where(mine).values(position=position))

    # -- failures --

    def failures(self) -> Sequence[ReactionFailure]:
        """Return all failures, the oldest first."""
        return self._read(sa.true())

    def due(self) -> Sequence[ReactionFailure]:
        """Return the failures that are to be retried now, the oldest first."""
        return self._read(self._failures.c.retry_at <= self._now)

    def _read(self, condition: sa.ColumnElement[bool]) -> list[ReactionFailure]:
        names = list(ReactionFailure.__dataclass_fields__)
        query = sa.select(*(self._failures.c[name] for name in names)).where(condition)
        with self._registry.reading() as session:
            rows = session.execute(query.order_by(self._failures.c.first_at)).all()
        return [ReactionFailure(**row._mapping) for row in rows]  # noqa: SLF001 (public in spite of its name)

    def fail(self, name: str, tenant_id: UUID, number: int, position: int, error: BaseException) -> None:
        """Record the first failure at a change, and pass its position, so that other tenants do not wait."""
        now = datetime.now(UTC)
        values = {
            "number": number,
            "last_number": number,
            "error": describe(error),
            "frames": frames_of(error),
            "attempts": 1,
            "first_at": now,
            "last_at": now,
            "retry_at": self._now + _FIRST_DELAY,
        }
        with self._registry.writing_rows() as session:
            session.execute(sa.delete(self._failures).where(self._is(tenant_id, name)))
            session.execute(sa.insert(self._failures).values(tenant_id=tenant_id, reaction=name, **values))
            self._advance(session, name, position)

    def fail_again(self, failure: ReactionFailure, number: int, error: BaseException) -> None:
        """Record that a retry has failed, at the same change or at a later one, and when the next one is due."""
        is_same = number == failure.number
        attempts = failure.attempts + 1 if is_same else 1
        now = datetime.now(UTC)
        delay = min(_FIRST_DELAY * 2 ** min(attempts - 1, _MAX_DOUBLINGS), _MAX_DELAY)
        values = {
            "number": number,
            "error": describe(error),
            "frames": frames_of(error),
            "attempts": attempts,
            "first_at": failure.first_at if is_same else now,
            "last_at": now,
            "retry_at": self._now + delay,
        }
        with self._registry.writing_rows() as session:
            # Not if an operator has skipped the change meanwhile.
            mine = self._at(failure.tenant_id, failure.reaction, failure.number)
            session.execute(sa.update(self._failures).where(mine).values(values))

    def wait_behind(self, name: str, tenant_id: UUID, number: int, position: int) -> bool:
        """Let a change wait behind its tenant's failure, and pass its position; return False without one."""
        with self._registry.writing_rows() as session:
            mine = self._is(tenant_id, name)
            found: Any = session.execute(sa.update(self._failures).where(mine).values(last_number=number))
            if found.rowcount:
                self._advance(session, name, position)
            return bool(found.rowcount)

    def pass_over(self, failure: ReactionFailure, number: int) -> bool:
        """Move a failure on to the change after ``number``, and retry that at once; delete it after the last change.

        Return whether the failure was at the change that ``failure`` names, and nothing was deleted or moved meanwhile.
        """
        table = self._failures
        mine = self._at(failure.tenant_id, failure.reaction, failure.number)
        with self._registry.writing_rows() as session:
            ended: Any = session.execute(sa.delete(table).where(mine, table.c.last_number <= number))
            if ended.rowcount:
                return True
            values = {"number": number + 1, "attempts": 0, "retry_at": 0.0}
            moved: Any = session.execute(sa.update(table).where(mine).values(values))
            return bool(moved.rowcount)

    def retry(self, failure: ReactionFailure) -> None:
        """Let a failure be retried at once."""
        with self._registry.writing_rows() as session:
            mine = self._is(failure.tenant_id, failure.reaction)
            session.execute(sa.update(self._failures).where(mine).values(retry_at=0.0))

    def _is(self, tenant_id: UUID, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(self._failures.c.tenant_id == tenant_id, self._failures.c.reaction == name)

    def _at(self, tenant_id: UUID, name: str, number: int) -> sa.ColumnElement[bool]:
        return sa.and_(self._is(tenant_id, name), self._failures.c.number == number)

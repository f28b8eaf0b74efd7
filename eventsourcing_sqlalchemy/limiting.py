"""What limits the events that an application records; for layers above this package."""

from __future__ import annotations

from typing import Protocol

from eventsourcing_sqlalchemy.dialects.protocols import Batch

__all__ = ["AppendLimiter", "Reservation"]


class Reservation(Protocol):
    """Events that are about to be recorded."""

    def settle(self, last_id: int) -> None:
        """Note the id of the last event: they are recorded, perhaps in a transaction that is still open."""

    def release(self) -> None:
        """Discard the events: recording them has failed, or its outcome is unknown."""


class AppendLimiter(Protocol):
    """Counts the events that an application records, and may refuse them."""

    def reserve(self, batch: Batch, *, follows: bool) -> Reservation | None:
        """Raise an exception to refuse a batch before it is sent. ``follows`` means that it records a follower's
        position.
        """

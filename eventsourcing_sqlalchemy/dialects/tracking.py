"""The condition of a tracking position, and the error for one that does not hold."""

from __future__ import annotations

from dataclasses import dataclass

from eventsourcing.persistence import IntegrityError, Tracking

__all__ = ["ConditionalTracking", "tracking_conflict"]


@dataclass(frozen=True)
class ConditionalTracking(Tracking):
    """A position that is recorded only if the recorded one is at least ``at_least`` and below the new one.

    Otherwise IntegrityError is raised and nothing is written. A follower that caches its position thus detects, in the
    same statement, that it was moved back or deleted.
    """

    at_least: int


def tracking_conflict(tracking: Tracking) -> IntegrityError:
    """Return the error for a tracking position that is not ahead of the recorded one, or whose condition fails."""
    if isinstance(tracking, ConditionalTracking):
        msg = (
            f"The recorded tracking position of application {tracking.application_name!r} is not between "
            f"{tracking.at_least} and {tracking.notification_id - 1}: it was moved back, or notification "
            f"{tracking.notification_id} has already been processed. Nothing was written."
        )
        return IntegrityError(msg)
    msg = (
        f"Notification {tracking.notification_id} of application {tracking.application_name!r} has already been "
        "processed: the recorded tracking position is not behind it. Nothing was written."
    )
    return IntegrityError(msg)

"""Patch the library where it offers persistence modules no hook for transactions.

Importing this package wraps three library methods. Applications with other persistence modules are not affected.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from eventsourcing.application import Application, ProcessingEvent, Repository
from eventsourcing.persistence import EventStore

from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder
from eventsourcing_sqlalchemy.transactions import inside

__all__ = ["install"]


def install() -> None:
    """Wrap the library's methods."""
    _protect_caches()
    _take_snapshots_in_sessions()
    _show_tables()


def _protect_caches() -> None:
    construct = Repository.__init__

    @wraps(construct)
    def __init__(self: Repository[Any], event_store: EventStore[Any], **options: Any) -> None:  # noqa: N807
        construct(self, event_store, **options)
        recorder = event_store.recorder
        if self.cache is not None and isinstance(recorder, SQLAlchemyAggregateRecorder):
            self.cache = recorder.aggregate_caches.protect(
                self.cache, evicts_rejected=not (self.fastforward and self.deepcopy_from_cache)
            )

    Repository.__init__ = __init__  # type: ignore[method-assign]


def _take_snapshots_in_sessions() -> None:
    take = Application._take_snapshots  # noqa: SLF001 (`save` and `process_event` call it with the session)

    @wraps(take)
    def _take_snapshots(self: Application[Any], processing_event: ProcessingEvent[Any]) -> None:
        session, recorder = processing_event.saved_kwargs.get("session"), self.recorder
        if session is None or not isinstance(recorder, SQLAlchemyAggregateRecorder):
            take(self, processing_event)
            return
        with inside(recorder.datastore, session):
            take(self, processing_event)

    Application._take_snapshots = _take_snapshots  # type: ignore[method-assign] # noqa: SLF001


def _show_tables() -> None:
    show = Application.__repr__

    @wraps(show)
    def __repr__(self: Application[Any]) -> str:  # noqa: N807
        # An application whose constructor failed has no recorder.
        recorder = getattr(self, "recorder", None)
        return f"{self.name}({recorder!r})" if isinstance(recorder, SQLAlchemyAggregateRecorder) else show(self)

    Application.__repr__ = __repr__  # type: ignore[assignment, method-assign]

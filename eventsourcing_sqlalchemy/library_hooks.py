"""Where the library gives a persistence module no hook, and a transaction has to reach all the same.

Importing the package adds to two methods of the library. What they do for applications of other persistence modules
stays as it is.
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
    """Add to the library's classes what this package needs of them."""
    _protect_caches()
    _take_snapshots_in_sessions()


def _protect_caches() -> None:
    construct = Repository.__init__

    @wraps(construct)
    def __init__(self: Repository[Any], event_store: EventStore[Any], **options: Any) -> None:  # noqa: N807
        construct(self, event_store, **options)
        recorder = event_store.recorder
        if self.cache is not None and isinstance(recorder, SQLAlchemyAggregateRecorder):
            self.cache = recorder.aggregate_caches.protect(
                self.cache, drops_refused=not (self.fastforward and self.deepcopy_from_cache)
            )

    Repository.__init__ = __init__  # type: ignore[method-assign]


def _take_snapshots_in_sessions() -> None:
    take = Application._take_snapshots  # noqa: SLF001 (what `save` and `process_event` call, with the session)

    @wraps(take)
    def _take_snapshots(self: Application[Any], processing_event: ProcessingEvent[Any]) -> None:
        session, recorder = processing_event.saved_kwargs.get("session"), self.recorder
        if session is None or not isinstance(recorder, SQLAlchemyAggregateRecorder):
            take(self, processing_event)
            return
        with inside(recorder.datastore, session):
            take(self, processing_event)

    Application._take_snapshots = _take_snapshots  # type: ignore[method-assign] # noqa: SLF001

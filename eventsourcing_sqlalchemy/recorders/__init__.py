"""Recorders write and read an application's events, snapshots and tracking positions."""

from eventsourcing_sqlalchemy.dialects.tracking import ConditionalTracking
from eventsourcing_sqlalchemy.recorders.aggregate import SQLAlchemyAggregateRecorder
from eventsourcing_sqlalchemy.recorders.application import SQLAlchemyApplicationRecorder
from eventsourcing_sqlalchemy.recorders.base import SQLAlchemyRecorder
from eventsourcing_sqlalchemy.recorders.process import SQLAlchemyProcessRecorder
from eventsourcing_sqlalchemy.recorders.tracking import SQLAlchemyTrackingRecorder
from eventsourcing_sqlalchemy.subscriptions import SQLAlchemySubscription

__all__ = [
    "ConditionalTracking",
    "SQLAlchemyAggregateRecorder",
    "SQLAlchemyApplicationRecorder",
    "SQLAlchemyProcessRecorder",
    "SQLAlchemyRecorder",
    "SQLAlchemySubscription",
    "SQLAlchemyTrackingRecorder",
]

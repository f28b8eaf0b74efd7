"""A fleet whose code changes: the environment variable MORE gives the view more tables and columns."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy as sa
from eventsourcing.persistence import Tracking
from eventsourcing.tests.projection import EventCountersView

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenancy
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.views import DogCounters


class View(SQLAlchemyTrackingRecorder, EventCountersView):
    """A view that leaves its tables to migrations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        more: list[Any] = []
        if os.environ.get("MORE"):
            more = [sa.Column("name", sa.Text, index=True), sa.UniqueConstraint("name", name="one_name")]
        totals = self.own_table("totals", sa.Column("key", sa.Text, primary_key=True), *more)
        if more:
            self.own_table("parts", sa.Column("key", sa.ForeignKey(totals.c.key)))

    def get_created_event_counter(self) -> int:
        return 0

    def get_subsequent_event_counter(self) -> int:
        return 0

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self.insert_tracking(tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self.insert_tracking(tracking)


def fleet() -> Tenancy:
    """Return the fleet."""
    tenants = Tenancy(applications=[TrainingSchool], migrations="migrations")
    tenants.project(TrainingSchool, DogCounters, View)
    return tenants

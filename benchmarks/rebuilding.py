"""`python -m benchmarks.rebuilding URL`: events per second of a rebuild, beside the library's ProjectionRunner.

Both fill the same tables of one tenant from the first event: first the library's runner, one event a transaction, and
then a rebuild. The database must have no fleet. The printed lines are JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Final

import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenancy

_PER_AGGREGATE: Final = 500


class Meter(Aggregate):
    """Counts."""

    @event("Installed")
    def __init__(self, number: int) -> None:
        self.number = number

    @event("Read")
    def read(self, value: float) -> None:
        """Record a value."""
        self.value = value


class Meters(Application[Any]):
    """Records values of meters."""

    def fill(self, events: int) -> None:
        """Record events of many meters."""
        for number in range(events // _PER_AGGREGATE):
            meter = Meter(number)
            for value in range(_PER_AGGREGATE - 1):
                meter.read(value)
            self.save(meter)


class Values(SQLAlchemyTrackingRecorder):
    """The last value of each meter."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.values = self.own_table(
            "values", sa.Column("meter", sa.Text, primary_key=True), sa.Column("number", sa.Integer, nullable=False)
        )

    def create_table(self) -> None:
        super().create_table()
        self.values.create(self.datastore.engine, checkfirst=True)

    def count(self) -> int:
        """Return the sum of all numbers."""
        with self.transaction(commit=False) as session:
            return session.scalar(sa.select(sa.func.sum(self.values.c.number))) or 0


class KeepValues(Projection[Values]):
    """Counts the events of each meter: one statement an event, and its position."""

    def process_event(self, domain_event: Any, tracking: Any) -> None:
        """Count one."""
        values, meter = self.view.values, str(domain_event.originator_id)
        with self.view.transaction() as session:
            if domain_event.originator_version == 1:
                session.execute(sa.insert(values).values(meter=meter, number=1))
            else:
                changed = sa.update(values).where(values.c.meter == meter)
                session.execute(changed.values(number=values.c.number + 1))
            self.view._insert_tracking(session, tracking)  # noqa: SLF001 (as documented for views)


def measure(url: str, events: int) -> dict[str, Any]:
    """Return the rates, and their ratio."""
    with Tenancy(applications=[Meters], env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.project(Meters, KeepValues, Values)
        meters = tenants.create("acme").get(Meters)
        meters.fill(events)
        last = meters.recorder.max_notification_id()
        view = tenants.projection(KeepValues, "acme").view
        began = time.perf_counter()
        with ProjectionRunner(
            application_class=Meters, projection_class=KeepValues, view_class=Values, env=tenants.env("acme")
        ) as runner:
            runner.wait(last, timeout=3600)
        alone = time.perf_counter() - began
        _check(view, events)
        began = time.perf_counter()
        report = tenants.rebuild(KeepValues)
        rebuilt = time.perf_counter() - began
        if report.job is None or report.job.counts.done != 1:
            msg = "The rebuild has failed."
            raise SystemExit(msg)
        _check(view, events)
    rates = {"ProjectionRunner": events / alone, "rebuild": events / rebuilt}
    return {"events": events, **{name: round(rate) for name, rate in rates.items()}, "ratio": round(alone / rebuilt, 1)}


def _check(view: Any, events: int) -> None:
    if view.count() != events:
        msg = f"The view has {view.count()} of {events} events."
        raise SystemExit(msg)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--events", type=int, default=100_000)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.url, arguments.events)))

"""`python -m benchmarks.rebuild_lag URL`: how far followers are behind, without and with a rebuild beside them.

A runner process follows ten tenants to which this process writes at a steady rate, and `tenancy rebuild` rebuilds the
view of another tenant meanwhile. The lag of an event is the time from before it is saved until it is processed. Both
phases alternate. The database must have no fleet. The printed line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from statistics import quantiles
from typing import Any, Final

import sqlalchemy as sa
from eventsourcing.projection import Projection
from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from tenancy import Tenancy
from tenancy.operations.jobs import TenantSelection

from benchmarks.rebuilding import KeepValues, Meter, Meters, Values

_LIVE: Final = [f"live-{number}" for number in range(10)]
_REBUILT: Final = "rebuilt"
_WORKERS: Final = 4
_TENANCY: Final = (sys.executable, "-m", "tenancy", "--app", "benchmarks.rebuild_lag:fleet")


class Lags(SQLAlchemyTrackingRecorder):
    """When each value was read, and how much later it was processed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        columns = [sa.Column(name, sa.Double, nullable=False) for name in ("read_at", "seconds")]
        self.lags = self.own_table("lags", *columns)

    def create_table(self) -> None:
        super().create_table()
        self.lags.create(self.datastore.engine, checkfirst=True)

    def all(self) -> list[tuple[float, float]]:
        """Return all rows."""
        with self.transaction(commit=False) as session:
            return [(row.read_at, row.seconds) for row in session.execute(sa.select(self.lags))]


class KeepLags(Projection[Lags]):
    """Records the lag of each value."""

    def process_event(self, domain_event: Any, tracking: Any) -> None:
        """Record one."""
        with self.view.transaction() as session:
            self.view._insert_tracking(session, tracking)  # noqa: SLF001 (as documented for views)
            if domain_event.originator_version > 1:
                read_at = float(domain_event.value)
                row = {"read_at": read_at, "seconds": time.time() - read_at}
                session.execute(sa.insert(self.view.lags).values(row))


def fleet() -> Tenancy:
    """Return the fleet, for the processes."""
    tenants = Tenancy(applications=[Meters])
    tenants.project(Meters, KeepValues, Values)
    tenants.project(Meters, KeepLags, Lags)
    return tenants


@contextmanager
def _writing(tenants: Tenancy, rate: float) -> Iterator[list[int]]:
    """Write values to the live tenants in a thread; yield a list that gets an element for each."""
    written: list[int] = []
    is_over = threading.Event()
    applications = [tenants[slug].get(Meters) for slug in _LIVE]
    meters = [Meter(0) for _ in applications]

    def write() -> None:
        due = time.monotonic()
        for application, meter in cycle(list(zip(applications, meters, strict=True))):
            if is_over.wait(max(0.0, due - time.monotonic())):
                return
            due += 1 / rate
            meter.read(time.time())
            application.save(meter)
            written.append(1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        is_over.set()
        thread.join()


def measure(events: int, rate: float, rounds: int) -> dict[str, Any]:
    """Return the percentiles of both phases, and the ratio of the 95th ones."""
    windows: dict[str, list[tuple[float, float]]] = {"alone": [], "beside a rebuild": []}
    with fleet() as tenants:
        list(tenants.create_many([*_LIVE, _REBUILT]))
        tenants[_REBUILT].get(Meters).fill(events)
        for projection in (KeepValues, KeepLags):  # faster than following
            tenants.rebuild(projection, tenants=TenantSelection(slugs=[_REBUILT]))
        runner = subprocess.Popen([*_TENANCY, "runner", "start", "--workers", str(_WORKERS)])
        try:
            with _writing(tenants, rate) as written:
                _wait(lambda: _processed(tenants) > 0, "the runner follows")
                for _ in range(rounds):
                    began = time.time()
                    rebuild = [*_TENANCY, "rebuild", "KeepValues", _REBUILT, "--workers", str(_WORKERS)]
                    subprocess.run(rebuild, check=True, stdout=subprocess.DEVNULL)
                    between = time.time()
                    windows["beside a rebuild"].append((began, between))
                    _wait(lambda end=2 * between - began: time.time() > end, "as long without")
                    windows["alone"].append((between, time.time()))
            _wait(lambda: _processed(tenants) == len(written), "all is processed")
        finally:
            runner.terminate()
            runner.wait()
        lags = [row for slug in _LIVE for row in tenants.projection(KeepLags, slug).view.all()]
    found = {}
    for phase, spans in windows.items():
        some = [lag for at, lag in lags if any(start <= at < end for start, end in spans)]
        percentiles = quantiles(some, n=100)
        found[phase] = {"events": len(some), "p50_ms": _ms(percentiles[49]), "p95_ms": _ms(percentiles[94])}
    ratio = found["beside a rebuild"]["p95_ms"] / found["alone"]["p95_ms"]
    return {**found, "ratio": round(ratio, 2)}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _processed(tenants: Tenancy) -> int:
    return sum(len(tenants.projection(KeepLags, slug).view.all()) for slug in _LIVE)


def _wait(is_reached: Any, what: str, limit: float = 600.0) -> None:
    deadline = time.monotonic() + limit
    while not is_reached():
        if time.monotonic() > deadline:
            msg = f"Waited {limit:g} s in vain: {what}."
            raise SystemExit(msg)
        time.sleep(0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=50.0, help="events per second of all live tenants together")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["SQLALCHEMY_URL"] = arguments.url
    print(json.dumps(measure(arguments.events, arguments.rate, arguments.rounds)))

"""What metrics and traces cost in calls: nothing unless they are in use, and little then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from types import FrameType
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import StoredEvent
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry

from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from tenancy.telemetry.metrics import measure
from tenancy.telemetry.tracing import start_tracing
from tests.samples.training_school.application import TrainingSchool
from tests.support.fleets import fleet


def calls(work: Callable[[], Any]) -> list[str]:
    """Return the modules of the Python functions that a call runs in this thread; the fewest of some attempts."""
    attempts = []
    for _ in range(5):
        seen: list[str] = []

        def profile(frame: FrameType, event: str, _: object, seen: list[str] = seen) -> None:
            if event == "call":
                seen.append(frame.f_globals.get("__name__", ""))

        sys.setprofile(profile)
        try:
            work()
        finally:
            sys.setprofile(None)
        attempts.append(seen)
    return min(attempts, key=len)


@pytest.fixture
def recorder(sqlite_url: str) -> Iterator[SQLAlchemyApplicationRecorder]:
    with fleet(sqlite_url, ["acme"]) as tenants:
        recorder = tenants["acme"].get(TrainingSchool).recorder
        append(recorder)
        with closing(measure(tenants, registry=CollectorRegistry())):
            append(recorder)
        yield recorder


def append(recorder: SQLAlchemyApplicationRecorder) -> None:
    recorder.insert_events([StoredEvent(uuid4(), 1, "topic", b"state")])


def read(recorder: SQLAlchemyApplicationRecorder) -> None:
    recorder.select_events(uuid4())


@pytest.mark.parametrize(("work", "at_most"), [(append, 13), (read, 2)])
def test_calls(
    recorder: SQLAlchemyApplicationRecorder,
    sqlite_url: str,
    work: Callable[[SQLAlchemyApplicationRecorder], None],
    at_most: int,
) -> None:
    unmeasured = calls(lambda: work(recorder))
    instruments = ("tenancy.telemetry", "tenancy.instruments", "prometheus", "opentelemetry")
    assert [name for name in unmeasured if name.startswith(instruments)] == []
    with fleet(sqlite_url) as tenants, closing(measure(tenants, registry=CollectorRegistry())):
        work(recorder)
        measured = calls(lambda: work(recorder))
    assert 0 < len(measured) - len(unmeasured) <= at_most, len(measured) - len(unmeasured)


@pytest.mark.parametrize(("work", "at_most"), [(append, 14), (read, 13)])
def test_calls_below_a_span_that_is_not_sampled(
    recorder: SQLAlchemyApplicationRecorder, work: Callable[[SQLAlchemyApplicationRecorder], None], at_most: int
) -> None:
    untraced = calls(lambda: work(recorder))
    provider = TracerProvider(sampler=ALWAYS_OFF)
    with closing(start_tracing(provider)), provider.get_tracer("x").start_as_current_span("unsampled"):
        work(recorder)
        traced = calls(lambda: work(recorder))
    assert 0 < len(traced) - len(untraced) <= at_most

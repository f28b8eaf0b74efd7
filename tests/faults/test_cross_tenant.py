"""A projection over all tenants while runners are killed and paused, and tenants are created and purged."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

import pytest

from tenancy import Tenancy
from tenancy.errors import TenantUnavailable
from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.totals import CountAll, Totals
from tests.support.deadlines import wait_until
from tests.support.fleets import fleet_across
from tests.support.runner_process import RunnerProcess

pytestmark = pytest.mark.usefixtures("no_purge_delay")

SLUGS = [f"tenant-{number}" for number in range(50)]


@contextmanager
def writing(tenants: Tenancy) -> Iterator[None]:
    """Record events of all active tenants in a thread during the block."""
    stopping = threading.Event()

    def write() -> None:
        while not stopping.wait(0.1):
            for tenant in tenants.list("active"):
                try:
                    tenants.application(TrainingSchool, tenant).register("Rex", "sit", "roll over")
                except TenantUnavailable:
                    continue  # suspended or purged meanwhile

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def sequential(tenants: Tenancy) -> dict[UUID, tuple[int, int]]:
    """Return the expected contents of the view."""
    expected = {}
    for tenant in tenants.list("active"):
        school = tenants.application(TrainingSchool, tenant)
        events = [
            school.mapper.to_domain_event(each)
            for each in school.recorder.select_notifications(start=None, limit=10**6)
        ]
        dogs = sum(isinstance(each, Dog.Registered) for each in events)
        if events:
            expected[tenant.id] = (dogs, len(events) - dogs)
    return expected


def view_of(tenants: Tenancy) -> Totals:
    view = tenants.across(CountAll).view
    assert isinstance(view, Totals)
    return view


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_sums_equal_a_sequential_run(
    database: str, request: pytest.FixtureRequest, repeat: Callable[[int], range]
) -> None:
    url = request.getfixturevalue(database)
    slugs = SLUGS if database == "postgres_url" else SLUGS[:8]
    with fleet_across(url, slugs) as tenants:
        view = view_of(tenants)
        for attempt in repeat(1):
            with ExitStack() as stack:
                killed, paused, other = (stack.enter_context(RunnerProcess(url, across=True)) for _ in range(3))
                for process in (killed, paused, other):
                    process.wait_until_it_works()
                with writing(tenants):
                    before = view.all()
                    wait_until(lambda before=before: len(view.all()) > len(before) + 3 or before, "they follow")  # type: ignore[misc]
                    killed.signal(signal.SIGKILL)
                    if database == "postgres_url":  # if paused in a transaction, it would lock the whole SQLite file
                        paused.signal(signal.SIGSTOP)
                    for number in range(3):
                        tenants.create(f"late-{attempt}-{number}")
                    tenants.suspend(slugs[0])
                    # Until it continues or times out, its open transaction locks one tenant's position.
                    paused.signal(signal.SIGCONT)
                    tenants.purge(slugs[1])
                    tenants.create(slugs[1])
                    tenants.purge(f"late-{attempt}-0")
                    tenants.resume(slugs[0])
                expected = sequential(tenants)
                wait_until(lambda expected=expected: view.all() == expected, "the view has every event once", 120)  # type: ignore[misc]

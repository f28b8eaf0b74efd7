"""Runners in several processes that are killed, paused and drained while writers write."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

import pytest

from tenancy import Tenancy
from tenancy.runner.leases import BUCKETS, owners
from tests.samples.training_school.application import TrainingSchool
from tests.support.deadlines import wait_until
from tests.support.fleets import check, fleet, positions
from tests.support.pgbouncer import PgBouncer
from tests.support.runner_process import RunnerProcess

# Several processes start in each test, which takes minutes where many others run.
pytestmark = pytest.mark.timeout(900)

SLUGS = [f"tenant-{number}" for number in range(8)]


def shares(tenants: Tenancy) -> Counter[str]:
    return Counter(owners(tenants.fleet.registry).values())


def is_current(tenants: Tenancy) -> bool:
    return {(each.lag, each.state) for each in tenants.followers.status()} == {(0, "current")}


class Writers:
    """Two threads that record lessons for all tenants."""

    def __init__(self, tenants: Tenancy) -> None:
        self._tenants = tenants
        self.expected: dict[str, dict[UUID, list[str]]] = {slug: {} for slug in SLUGS}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(SLUGS[half::2],)) for half in (0, 1)]

    def _write(self, slugs: list[str]) -> None:
        number = 0
        while not self._stopping.wait(0.3):
            number += 1
            for slug in slugs:
                school = self._tenants[slug].get(TrainingSchool)
                dog_id = school.register(f"Dog {number}", "sit")
                school.teach(dog_id, "roll over")
                self.expected[slug][dog_id] = [f"Dog {number}", "sit", "roll over"]

    @contextmanager
    def writing(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()


def wait_for_all(tenants: Tenancy, writers: Writers) -> None:
    wait_until(lambda: is_current(tenants), "all events are processed", progress=lambda: positions(tenants))
    for slug, expected in writers.expected.items():
        assert expected
        check(tenants, slug, expected)


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_killed_paused_continued_and_drained(
    database: str, request: pytest.FixtureRequest, repeat: Callable[[int], range]
) -> None:
    url = request.getfixturevalue(database)
    with fleet(url) as tenants:
        for _ in repeat(1):
            [*tenants.create_many(SLUGS)]
            disturb(tenants, url)
            [*tenants.purge_many(SLUGS)]


def disturb(tenants: Tenancy, url: str) -> None:
    writers = Writers(tenants)
    with ExitStack() as stack:
        killed, paused, drained = (stack.enter_context(RunnerProcess(url)) for _ in range(3))
        for process in (killed, paused, drained):
            process.wait_until_it_works()
        wait_until(
            lambda: len(held := shares(tenants)) == 3 and max(held.values()) <= BUCKETS // 3 + 1,
            "all runners have a share",
        )
        with writers.writing():
            killed.signal(signal.SIGKILL)
            paused.signal(signal.SIGSTOP)
            wait_until(lambda: shares(tenants) == {drained.owner: BUCKETS}, "one runner takes over")
            paused.signal(signal.SIGCONT)
            halves = {drained.owner: BUCKETS // 2, paused.owner: BUCKETS // 2}
            wait_until(lambda: shares(tenants) == halves, "the paused runner has its share again")
            drained.signal(signal.SIGTERM)
            assert drained.wait_for_end() == 0
            assert drained.owner not in shares(tenants)
            wait_until(lambda: shares(tenants) == {paused.owner: BUCKETS}, "the last runner holds all leases")
        wait_for_all(tenants, writers)
        paused.signal(signal.SIGTERM)
        assert paused.wait_for_end() == 0
        assert not shares(tenants)


def test_killed_at_any_moment_and_restarted(postgres_url: str, repeat: Callable[[int], range]) -> None:
    with fleet(postgres_url, SLUGS) as tenants:
        writers = Writers(tenants)
        with writers.writing():
            for _ in repeat(3):
                with RunnerProcess(postgres_url, 1.0) as process:
                    process.wait_until_it_works()
                    before = positions(tenants)
                    wait_until(
                        lambda before=before: positions(tenants) > before + 20,  # type: ignore[misc]
                        "it works",
                        progress=lambda: positions(tenants),
                    )
                    process.signal(signal.SIGKILL)
        with RunnerProcess(postgres_url, 1.0) as process:
            process.wait_until_it_works()
            wait_for_all(tenants, writers)


def test_behind_a_pooler_in_transaction_mode(pgbouncer: PgBouncer, postgres_database: str) -> None:
    url = pgbouncer.url(postgres_database)
    with fleet(url, SLUGS) as tenants:
        writers = Writers(tenants)
        with RunnerProcess(url) as one, RunnerProcess(url) as other:
            for process in (one, other):
                process.wait_until_it_works()
            wait_until(lambda: {*shares(tenants).values()} == {BUCKETS // 2}, "each runner has half")
            with writers.writing():
                wait_until(lambda: all(each.position > 5 for each in tenants.followers.status()), "they follow")
            wait_for_all(tenants, writers)

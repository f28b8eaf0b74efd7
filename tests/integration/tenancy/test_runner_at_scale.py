"""Many tenants on few threads and connections, with a flooding and a slow tenant."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import psutil
import pytest
import sqlalchemy as sa

from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.system import Diaries
from tests.support.fleets import catch_up, check, fleet

WORKERS = 4
REGISTRY = 4


class Samples:
    """Peak numbers of this process's threads and of connections to a database.

    A connection counts while this process has its end open, because a server process outlives its connection.
    """

    def __init__(self, url: str) -> None:
        self.threads = self.connections = 0
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        process = psutil.Process()
        ports = sa.text(
            "SELECT client_port FROM pg_stat_activity "
            "WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        with self._engine.connect() as connection:
            while not self._stopping.wait(0.02):
                self.threads = max(self.threads, threading.active_count() - 1)
                of_server = set(connection.scalars(ports))
                ours = {each.laddr.port for each in process.net_connections("tcp4")}
                self.connections = max(self.connections, len(of_server & ours) - 1)  # without that of the samples
                connection.rollback()

    @contextmanager
    def taken(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()


@pytest.mark.timeout(900)
def test_many_tenants_on_few_threads_and_connections(postgres_url: str, repeat: Callable[[int], range]) -> None:
    """With TEST_REPEAT=4, a thousand tenants."""
    slugs = [f"tenant-{number}" for number in repeat(250)]
    limits = {"sqlalchemy_pool_size": WORKERS, "sqlalchemy_max_overflow": 0, "tenancy_max_applications": 4 * len(slugs)}
    with fleet(postgres_url, slugs, **limits) as tenants:
        before = threading.active_count()
        expected: dict[str, dict[UUID, list[str]]] = {}
        for slug in slugs:
            school = tenants[slug].get(TrainingSchool)
            tricks = [f"{slug} {number}" for number in range(4)]
            expected[slug] = {school.register(name, *tricks): [name, *tricks] for name in ("Fido", "Rex")}
        samples = Samples(postgres_url)
        with samples.taken(), tenants.runner(workers=WORKERS) as runner:
            for slug in slugs:
                catch_up(tenants, runner, slug)
        for slug in slugs:
            check(tenants, slug, expected[slug])
        # The workers, the coordinator, the listener, the notifier, and the thread that counts usage.
        assert samples.threads <= before + WORKERS + 4
        # The workers', the listener's, and the registry's: one, and more while several threads query it.
        assert 0 < samples.connections <= WORKERS + 1 + REGISTRY


def test_flooding_tenant_delays_the_others_by_a_few_slices(postgres_url: str, repeat: Callable[[int], range]) -> None:
    """Count the flood's notifications that are processed while a quiet tenant's event waits."""
    quiet = [f"quiet-{number}" for number in range(10)]
    flood = len(repeat(2000))
    with fleet(postgres_url, ["flood", *quiet]) as tenants:
        school = tenants["flood"].get(TrainingSchool)
        for number in range(flood // 20):
            school.register(f"Dog {number}", *["sit"] * 19)
        with tenants.runner(workers=2) as runner:
            done = []

            def processed() -> int:
                return sum(each.position for each in tenants.followers.status() if each.tenant == "flood")

            for slug in quiet:
                before = processed()
                tenants[slug].get(TrainingSchool).register("Rex")
                catch_up(tenants, runner, slug)
                done.append(processed() - before)
                if processed() >= 2 * flood:
                    break
            assert done
            # Each of its three followers gets at most a few slices of 100 notifications.
            assert max(done) <= 3 * 3 * 100
            assert processed() < 3 * flood  # the flood lasted the whole time


def test_slow_policy_does_not_delay_other_tenants(postgres_url: str) -> None:
    with fleet(postgres_url, ["slow", "quick"]) as tenants, tenants.runner(workers=2) as runner:
        # A minute of work, interrupted at the end.
        slow = tenants["slow"].get(TrainingSchool).register("Fido", *["slow 0.2"] * 300)
        quick = {}
        for number in range(10):
            quick[tenants["quick"].get(TrainingSchool).register(f"Dog {number}", "sit")] = [f"Dog {number}", "sit"]
            catch_up(tenants, runner, "quick")
        assert len(tenants["slow"].get(Diaries).entries(slow)) < 301
        check(tenants, "quick", quick)

"""A rebuild of a view over all tenants resumes after it was killed; until it ends well, the old view serves."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import pytest

from tenancy import Tenancy
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.totals import CountAll, Totals
from tests.support.across_process import start
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.fleets import catch_up, fleet_across

STEADY = ("acme", "globex", "initech")

pytestmark = pytest.mark.usefixtures("no_purge_delay")


class Observer:
    """A thread that reads the view, and checks that steady tenants never have fewer events than before."""

    def __init__(self, tenants: Tenancy) -> None:
        self._view = tenants.across(CountAll).view
        self._steady = [tenants[slug].id for slug in STEADY]
        self._seen = dict.fromkeys(self._steady, (0, 0))
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_SECONDS)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopping.wait(0.001):
                self._look()
        except Exception as error:  # noqa: BLE001 (raised where the block ends)
            self._error = error

    def _look(self) -> None:
        assert isinstance(self._view, Totals)
        rows = self._view.all()
        for tenant_id in self._steady:
            row, before = rows.get(tenant_id, (0, 0)), self._seen[tenant_id]
            assert row >= before, "fewer rows"
            assert row[1] >= before[1], "fewer rows"
            self._seen[tenant_id] = row


class World:
    """Writers, and an operator who creates, suspends, resumes and purges tenants."""

    def __init__(self, tenants: Tenancy, chance: random.Random) -> None:
        self._tenants = tenants
        self._chance = chance
        self._number = 0
        self.expected: dict[UUID, tuple[int, int]] = {}

    def write(self, slug: str, dogs: int = 1) -> None:
        """Record some events of a tenant."""
        tenant = self._tenants[slug]
        for _ in range(dogs):
            tenant.get(TrainingSchool).register("Rex", "sit", "stay")
            known = self.expected.get(tenant.id, (0, 0))
            self.expected[tenant.id] = known[0] + 1, known[1] + 2

    def turn(self) -> None:
        """Record events of active tenants, and change one of the others."""
        for tenant in self._tenants.list("active"):
            self.write(tenant.slug)
        others = [tenant for tenant in self._tenants if tenant.slug not in STEADY]
        if len(others) < 3:
            self._number += 1
            self._tenants.create(f"other{self._number}")
            self.write(f"other{self._number}", 3)
            return
        other = self._chance.choice(others)
        if other.status == "suspended" and self._chance.random() < 0.5:
            self._tenants.resume(other)
        elif other.status == "active" and self._chance.random() < 0.5:
            self._tenants.suspend(other)
        else:
            self._tenants.purge(other)
            self.expected.pop(other.id, None)


@pytest.mark.parametrize("url", ["postgres_url", "sqlite_url"])
def test_rebuild_survives_kills(request: pytest.FixtureRequest, url: str, repeat: Callable[[int], range]) -> None:
    """With TEST_REPEAT=25, fifty kills on each database."""
    url = request.getfixturevalue(url)
    chance = random.Random(7)  # noqa: S311 (the moments of the kills, not a secret)
    with fleet_across(url, STEADY) as tenants:
        world = World(tenants, chance)
        for slug in STEADY:
            world.write(slug, 50)
        view = tenants.across(CountAll).view
        assert isinstance(view, Totals)
        kills, wanted = 0, len(repeat(2))
        with tenants.runner() as runner, Observer(tenants):
            for slug in STEADY:
                catch_up(tenants, runner, slug)
            while kills < wanted:
                with start(url) as process:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(chance.uniform(0.0, 1.0))
                    process.kill()
                    kills += process.wait(DEADLINE_SECONDS) < 0
                world.turn()
            for _ in range(2):  # the first may find a job that was killed before it had begun
                with start(url) as process:
                    world.turn()
                    code = process.wait(DEADLINE_SECONDS)
                if code == 0:
                    break
            assert code == 0
            for tenant in tenants.list("suspended"):
                tenants.resume(tenant)
            for tenant in tenants:
                catch_up(tenants, runner, tenant.slug)
            assert {each.state for each in runner.status() if each.follower == "CountAll"} == {"current"}
        assert view.all() == world.expected
        across = tenants.across(CountAll)
        assert not view.datastore.run(lambda executor: across.replacer.names_in(executor, across.shadow_space))

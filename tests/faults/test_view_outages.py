"""The database of a view over all tenants is stopped, killed or absent: only the followers of that view wait."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from tenancy import Tenancy
from tenancy.errors import NotCaughtUp
from tenancy.runner.view_watch import NO_ANSWER
from tenancy.testing.postgresql import PostgresServer
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.totals import CountAll, Totals
from tests.samples.training_school.views import CountersView, DogCounters
from tests.support.deadlines import DEADLINE_SECONDS, wait_until


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of the tenants' database, which always works."""
    return str(request.getfixturevalue(request.param))


@contextmanager
def fleet(url: str, view_url: str) -> Iterator[Tenancy]:
    """Yield a fleet with a view for each tenant, and one over all tenants in another database."""
    with Tenancy(applications=[TrainingSchool], env={"SQLALCHEMY_URL": url}) as tenants:
        tenants.project(TrainingSchool, DogCounters, CountersView)
        tenants.project_across(TrainingSchool, CountAll, Totals, url=view_url)
        for slug in ("acme", "globex"):
            tenants.create(slug)
        yield tenants


@contextmanager
def paused(server: PostgresServer) -> Iterator[None]:
    """Let no process of a server run inside the block. Its sockets stay open."""
    main = psutil.Process(int(server.pid_file.read_text("utf-8").splitlines()[0]))
    processes = [main]
    main.send_signal(signal.SIGSTOP)
    for child in main.children(recursive=True):
        child.send_signal(signal.SIGSTOP)
        processes.append(child)
    try:
        yield
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)


def states(status: Any, follower: str) -> set[str]:
    return {each.state for each in status if each.follower == follower}


def expected(tenants: Tenancy) -> dict[Any, tuple[int, int]]:
    """Return what has been recorded: each dog does one trick."""
    found = {}
    for tenant in tenants:
        last = tenant.get(TrainingSchool).recorder.max_notification_id() or 0
        found[tenant.id] = (last // 2, last // 2)
    return found


def totals(tenants: Tenancy) -> dict[Any, tuple[int, int]]:
    view = tenants.across(CountAll).view
    assert isinstance(view, Totals)
    return view.all()


def write(tenants: Tenancy) -> None:
    for tenant in tenants:
        tenant.get(TrainingSchool).register("Rex", "sit")


def check_others_go_on(tenants: Tenancy, runner: Any) -> None:
    """Record events, and check that the followers in the tenants' database process them soon."""
    for _ in range(5):
        write(tenants)
        began = time.monotonic()
        wait_until(
            lambda: all(
                each.view.max_tracking_id("TrainingSchool") == tenant.get(TrainingSchool).recorder.max_notification_id()
                for tenant in tenants
                for each in [tenants.projection(DogCounters, tenant)]
            ),
            "the other followers have gone on",
        )
        assert time.monotonic() - began < 20, "the machine is busy, but no wait for a database's time limit"
    assert {name for name, error in runner.health().items() if error is not None} <= {"views of CountAll"}


@pytest.mark.parametrize("workers", [1, 4])
def test_paused_database(url: str, own_postgres_server: PostgresServer, workers: int) -> None:
    with fleet(url, own_postgres_server.url()) as tenants, tenants.runner(workers=workers) as runner:
        write(tenants)
        for slug in ("acme", "globex"):
            runner.wait(slug, DEADLINE_SECONDS)
        with paused(own_postgres_server):
            check_others_go_on(tenants, runner)
            wait_until(lambda: runner.health()["views of CountAll"] is not None, "the view is reported")
            assert states(runner.status(), "CountAll") == {"unreachable"}
            assert states(runner.status(), "DogCounters") == {"current"}
            with pytest.raises(NotCaughtUp):
                runner.wait("acme", 0.5)
            check_others_go_on(tenants, runner)
        for slug in ("acme", "globex"):
            runner.wait(slug, DEADLINE_SECONDS)
        wait_until(lambda: not any(runner.health().values()), "the view works again")
        assert states(runner.status(), "CountAll") == {"current"}
        assert totals(tenants) == expected(tenants)


def test_paused_database_is_reported_as_such(sqlite_url: str, own_postgres_server: PostgresServer) -> None:
    with fleet(sqlite_url, own_postgres_server.url()) as tenants, tenants.runner(workers=1) as runner:
        write(tenants)
        runner.wait("acme", DEADLINE_SECONDS)
        with paused(own_postgres_server):
            wait_until(lambda: runner.health()["views of CountAll"] == NO_ANSWER, "the query is not answered")


def test_runner_stops_while_the_database_is_paused(sqlite_url: str, own_postgres_server: PostgresServer) -> None:
    with fleet(sqlite_url, own_postgres_server.url()) as tenants:
        runner = tenants.runner(workers=2)
        with runner:
            write(tenants)
            runner.wait("acme", DEADLINE_SECONDS)
            with paused(own_postgres_server):
                write(tenants)
                wait_until(lambda: runner.health()["views of CountAll"] is not None, "the view is reported")
                began = time.monotonic()
                assert not runner.stop(timeout=1.0)
                assert time.monotonic() - began < 20


def test_killed_database(url: str, own_postgres_server: PostgresServer) -> None:
    with fleet(url, own_postgres_server.url()) as tenants, tenants.runner(workers=1) as runner:
        write(tenants)
        for slug in ("acme", "globex"):
            runner.wait(slug, DEADLINE_SECONDS)
        own_postgres_server.stop("immediate")
        check_others_go_on(tenants, runner)
        wait_until(lambda: runner.health()["views of CountAll"] is not None, "the view is reported")
        assert states(runner.status(), "CountAll") == {"unreachable"}
        own_postgres_server.start()
        for slug in ("acme", "globex"):
            runner.wait(slug, DEADLINE_SECONDS)
        wait_until(lambda: not any(runner.health().values()), "the view works again")
        assert totals(tenants) == expected(tenants)


def test_database_that_is_absent_from_the_start(url: str, own_postgres_server: PostgresServer) -> None:
    own_postgres_server.stop()
    with fleet(url, own_postgres_server.url()) as tenants, tenants.runner(workers=1) as runner:
        check_others_go_on(tenants, runner)
        assert states(tenants.followers.status(), "CountAll") == {"unreachable"}
        own_postgres_server.start()
        for slug in ("acme", "globex"):
            runner.wait(slug, DEADLINE_SECONDS)
        assert totals(tenants) == expected(tenants)

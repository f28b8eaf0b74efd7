"""Jobs in several processes that are killed, stopped, interrupted and cancelled."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tenancy import Tenancy
from tenancy.operations.jobs import JobStatus
from tenancy.operations.jobs.job import Counts, Job
from tenancy.testing.postgresql import PostgresServer
from tests.samples.counting_job import Kennel, create_tables, effects, processes, starts
from tests.support.deadlines import wait_until
from tests.support.job_process import JobProcess

SLUGS = [f"tenant-{number:02}" for number in range(24)]
STEPS = 4


@pytest.fixture(params=["postgres_url", "sqlite_url"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def tenants(url: str) -> Iterator[Tenancy]:
    """A fleet of tenants."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as fleet:
        for _ in fleet.create_many(SLUGS):
            pass
        create_tables(fleet)
        yield fleet


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that items wait for."""
    return tmp_path / "gate"


def job_of(tenants: Tenancy) -> Job:
    (job,) = tenants.jobs.list()
    return job


def check_all_done(tenants: Tenancy) -> None:
    """Every item has ended well, and every step had its effect once."""
    job = job_of(tenants)
    assert (job.status, job.counts) == (JobStatus.DONE, Counts(done=len(SLUGS)))
    assert effects(tenants) == dict.fromkeys(SLUGS, STEPS)


@pytest.mark.timeout(900)
def test_executors_that_are_all_killed_at_once_are_replaced(tenants: Tenancy, url: str) -> None:
    with JobProcess.run(url, {"steps": STEPS}, "--processes", "2", "--lease", "1") as command:
        wait_until(lambda: sum(starts(tenants).values()) > 0, "an item is started", 120)
        for executor in command.executors():
            with suppress(psutil.NoSuchProcess):
                executor.kill()
        assert command.wait_for_end(300) == 0, command.errors
    check_all_done(tenants)


@pytest.mark.timeout(900)
def test_executors_killed_at_any_moment(tenants: Tenancy, url: str, repeat: Callable[[int], range]) -> None:
    """With TEST_REPEAT=5, up to twenty are killed."""
    chance = random.Random(4711)  # noqa: S311 (not for secrets)
    with JobProcess.run(url, {"steps": STEPS}, "--processes", "3", "--lease", "1") as command:
        kills = 0
        for _ in repeat(4):
            before = sum(starts(tenants).values())
            further = before + chance.randrange(1, 4)
            wait_until(
                lambda further=further: command.has_ended or sum(starts(tenants).values()) >= further,  # type: ignore[misc]
                "items are started",
                120,
            )
            if executors := command.executors():
                with suppress(psutil.NoSuchProcess):
                    chance.choice(executors).kill()
                    kills += 1
        assert kills
        assert command.wait_for_end(300) == 0, command.errors
    check_all_done(tenants)


def test_a_killed_command_takes_its_executors_along_and_another_resumes(tenants: Tenancy, url: str, gate: Path) -> None:
    parameters = {"steps": STEPS, "gate": str(gate)}
    with JobProcess.run(url, parameters, "--lease", "1", "--drain", "0") as command:
        wait_until(lambda: len(starts(tenants)) == 2, "both executors work")
        executors = command.executors()
        command.signal(signal.SIGKILL)
        gone, alive = psutil.wait_procs(executors, timeout=60)
        assert (len(gone), alive) == (2, [])
    job = job_of(tenants)
    assert (job.status, job.counts.unfinished) == (JobStatus.RUNNING, len(SLUGS))
    gate.touch()
    with JobProcess(url, "resume", str(job.id)) as command:
        assert command.wait_for_end() == 0, command.errors
    check_all_done(tenants)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_finishes_what_it_has_begun(
    tenants: Tenancy, url: str, gate: Path, number: signal.Signals
) -> None:
    with JobProcess.run(url, {"steps": STEPS, "gate": str(gate)}, "--drain", "60") as command:
        wait_until(lambda: len(starts(tenants)) == 2, "both executors work")
        command.signal(number)
        gate.touch()
        assert command.wait_for_end() == 130, command.errors
        job = job_of(tenants)
        assert '"code": "interrupted"' in command.errors
        assert f"tenancy jobs resume {job.id}" in command.errors
    assert job.status is JobStatus.RUNNING
    assert job.counts.running == 0
    assert job.counts.done >= 2
    if job.counts.pending:
        with JobProcess(url, "resume", str(job.id)) as command:
            assert command.wait_for_end() == 0, command.errors
    check_all_done(tenants)
    assert starts(tenants) == dict.fromkeys(SLUGS, 1)


@pytest.mark.parametrize("is_deaf", [False, True])
def test_an_item_that_takes_longer_than_the_drain_is_taken_over(
    tenants: Tenancy, url: str, gate: Path, is_deaf: bool
) -> None:
    parameters = {"steps": STEPS, "gate": str(gate), "deaf": is_deaf}
    with JobProcess.run(url, parameters, "--lease", "1", "--drain", "0.2") as command:
        wait_until(lambda: len(starts(tenants)) == 2, "both executors work")
        command.signal(signal.SIGTERM)
        assert command.wait_for_end() == 130, command.errors
    job = job_of(tenants)
    assert job.counts == Counts(pending=len(SLUGS) - 2 * is_deaf, running=2 * is_deaf)
    gate.touch()
    with JobProcess(url, "resume", str(job.id)) as command:
        assert command.wait_for_end() == 0, command.errors
    check_all_done(tenants)


def test_two_machines_share_a_job(tenants: Tenancy, url: str, gate: Path) -> None:
    with JobProcess.run(url, {"steps": STEPS, "gate": str(gate)}) as one:
        wait_until(lambda: len(starts(tenants)) == 2, "the first one works")
        with JobProcess(url, "resume", str(job_of(tenants).id)) as other:
            wait_until(lambda: len(starts(tenants)) == 4, "both work")
            gate.touch()
            assert one.wait_for_end() == 0, one.errors
            assert other.wait_for_end() == 0, other.errors
    check_all_done(tenants)
    assert len(processes(tenants)) == 4
    assert starts(tenants) == dict.fromkeys(SLUGS, 1)


def test_a_job_is_cancelled_while_it_runs(tenants: Tenancy, url: str, gate: Path) -> None:
    with JobProcess.run(url, {"steps": STEPS, "gate": str(gate)}, "--lease", "1") as command:
        wait_until(lambda: len(starts(tenants)) == 2, "both executors work")
        tenants.jobs.cancel(job_of(tenants).id)
        assert command.wait_for_end() == 7, command.errors
    job = job_of(tenants)
    assert (job.status, job.counts) == (JobStatus.CANCELLED, Counts(cancelled=len(SLUGS)))
    assert effects(tenants) == {}


def test_a_stopped_executor_is_taken_over_and_records_nothing_when_it_continues(
    tenants: Tenancy, url: str, gate: Path
) -> None:
    with JobProcess.run(url, {"steps": STEPS, "gate": str(gate)}, "--lease", "1") as command:
        wait_until(lambda: len(starts(tenants)) == 2, "both executors work")
        stopped = command.executors()[0]
        stopped.suspend()
        gate.touch()
        wait_until(lambda: job_of(tenants).status is JobStatus.DONE, "the other one does everything", 120)
        items = tenants.jobs.items(job_of(tenants).id)
        stopped.resume()
        assert command.wait_for_end() == 0, command.errors
    assert tenants.jobs.items(job_of(tenants).id) == items
    check_all_done(tenants)
    assert sum(starts(tenants).values()) == len(SLUGS) + 1


def test_the_registry_is_gone_for_a_while(own_postgres_server: PostgresServer, gate: Path) -> None:
    url = own_postgres_server.url()
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants:
        [*tenants.create_many(SLUGS)]
        create_tables(tenants)
        with JobProcess.run(url, {"steps": STEPS, "gate": str(gate)}, "--lease", "1") as command:
            wait_until(lambda: len(starts(tenants)) == 2, "both executors work")
            own_postgres_server.stop("immediate")
            wait_until(lambda: "could not be renewed" in command.errors, "an executor notices")
            own_postgres_server.start()
            gate.touch()
            assert command.wait_for_end() == 0, command.errors
        check_all_done(tenants)

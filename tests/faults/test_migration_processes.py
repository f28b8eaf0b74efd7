"""Migrations of users' tables in processes that are killed, while writers write and a runner follows."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tests.samples.migrated_school import fleet
from tests.samples.training_school.application import TrainingSchool
from tests.samples.training_school.views import DogCounters
from tests.support.deadlines import wait_until
from tests.support.revisions import Revisions, rows

PROCESSES = 4
# Each step leaves a trace in the transaction that makes it, in a table that no tenant owns.
TRACE = "op.execute(f\"INSERT INTO public.steps (tenant, step) VALUES ('{{own_name('x')}}', '{step}')\")"
COLUMN = 'op.add_column(own_name("notes"), sa.Column("number", sa.Integer))'
INDEX = 'op.create_index(own_name("ix_notes_number"), own_name("notes"), ["number"])'
DATA = "op.execute(f\"INSERT INTO {own_name('notes')} (id, text) VALUES (7, 'once')\")"
NOTES = """
op.create_table(
    own_name("notes"), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text, nullable=False)
)
"""


class MigrateProcess:
    """The command as a process, with those that it starts."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tenancy", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def executors(self) -> list[psutil.Process]:
        """Return the living executors."""
        try:
            found = psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return []
        return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait_for_end(self) -> tuple[int, str]:
        _, errors = self._process.communicate(timeout=600)
        return self._process.returncode, errors

    def kill(self) -> None:
        """Kill it with its executors, if it has not ended."""
        for process in [*self.executors(), *([] if self.has_ended else [psutil.Process(self._process.pid)])]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.communicate()


@pytest.fixture
def tenants(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeat: Callable[[int], range]
) -> Iterator[Tenancy]:
    """A fleet whose tenants are all at the first revision; with TEST_REPEAT=20, of 500 tenants."""
    revisions = Revisions(tmp_path / "migrations")
    revisions.add("a1", None, NOTES)
    monkeypatch.setenv("SQLALCHEMY_URL", postgres_url)
    monkeypatch.setenv("TENANCY_TABLE_PREFIX", "{tenant}_")
    monkeypatch.setenv("TENANCY_MIGRATIONS", str(revisions.path))
    monkeypatch.setenv("TENANCY_APP", "tests.samples.migrated_school:fleet")
    with fleet() as tenants:
        list(tenants.create_many([f"tenant{number:03}" for number in repeat(25)]))
        with tenants.fleet.shard.datastore.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE public.steps (tenant text, step text)")
        for number, (revision, body) in enumerate({"b2": COLUMN, "c3": INDEX, "d4": DATA}.items()):
            revisions.add(revision, ["a1", "b2", "c3"][number], f"{body}\n{TRACE.format(step=revision)}")
        yield tenants


def steps(tenants: Tenancy) -> Counter[tuple[str, str]]:
    with tenants.fleet.shard.datastore.get_connection() as connection:
        return Counter((row[0], row[1]) for row in connection.execute(sa.text("SELECT tenant, step FROM public.steps")))


@contextmanager
def writing(tenants: Tenancy) -> Iterator[Counter[str]]:
    """Write to all tenants in a thread until the block ends, and yield the number of dogs of each."""
    written: Counter[str] = Counter()
    slugs = sorted(tenants.slugs())
    is_over = threading.Event()
    errors: list[Exception] = []

    def write() -> None:
        try:
            while not is_over.is_set():
                for slug in slugs:
                    tenants[slug].get(TrainingSchool).register("Fido")
                    written[slug] += 1
                    if is_over.wait(0.01):
                        return
        except Exception as error:  # noqa: BLE001 (shown by the test)
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        is_over.set()
        thread.join()
    assert errors == []


@pytest.mark.timeout(1800)
def test_every_step_is_made_once_while_processes_are_killed(tenants: Tenancy) -> None:
    """With TEST_REPEAT=20, 500 tenants are migrated while 20 processes are killed."""
    chance = random.Random(4711)  # noqa: S311 (not for secrets)
    slugs = sorted(tenants.slugs())
    kills = max(3, min(20, len(slugs) // 25))
    command = MigrateProcess("migrate", "--processes", str(PROCESSES), "--lease", "1", "--error-budget", "100%")
    try:
        with tenants.runner(workers=1), writing(tenants) as written:
            for number in range(1, kills + 1):
                done = len(slugs) * 3 * number // (kills + 1)
                wait_until(
                    lambda done=done: command.has_ended or steps(tenants).total() >= done,  # type: ignore[misc] # (mypy knows no defaults of lambdas)
                    f"{done} steps are made",
                    300,
                )
                if executors := command.executors():
                    with suppress(psutil.NoSuchProcess):
                        chance.choice(executors).kill()
            code, errors = command.wait_for_end()
            assert code == 0, errors
        with tenants.runner(workers=2) as runner:
            for slug in slugs:
                runner.wait(slug, timeout=600)  # all that was written meanwhile
                view = tenants.projection(DogCounters, slug).view
                assert view.get_created_event_counter() == written[slug] > 0
    finally:
        command.kill()
    prefixes = {tenant.placement.table_prefix for tenant in tenants}
    expected = {(f"{prefix}x", step): 1 for prefix in prefixes for step in ("b2", "c3", "d4")}
    assert steps(tenants) == expected
    assert {tenant.versions.migrations for tenant in tenants} == {("d4",)}
    for slug in slugs:
        assert rows(tenants, slug, "notes") == [(7, "once", None)]


def test_a_poisoned_tenant_is_isolated_and_the_run_resumed(tenants: Tenancy) -> None:
    poisoned = tenants[sorted(tenants.slugs())[3]]
    table = f"{poisoned.placement.table_prefix}notes"
    with tenants.fleet.shard.datastore.engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO public.\"{table}\" (id, text) VALUES (7, 'in the way')")
    code, _ = MigrateProcess("migrate", "--error-budget", "10%").wait_for_end()
    assert code == 7
    (job,) = tenants.jobs.list()
    (failed,) = (each for each in tenants.jobs.items(job.id) if each.error)
    assert failed.tenant_id == poisoned.id
    assert "in the way" not in repr(failed)
    by_version = Counter(tenant.versions.migrations for tenant in tenants.list())
    assert by_version == {("d4",): len(tenants.slugs()) - 1, ("a1",): 1}
    with tenants.fleet.shard.datastore.engine.begin() as connection:
        connection.exec_driver_sql(f'DELETE FROM public."{table}"')
    code, errors = MigrateProcess("jobs", "resume", str(job.id)).wait_for_end()
    assert code == 0, errors
    assert {tenant.versions.migrations for tenant in tenants.list()} == {("d4",)}

"""The demo's part about the runner: one for all tenants, which is killed and restarted."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread

import psutil

from demo.catalog import read_tables
from demo.databases import Database
from demo.observation import peak_of, together
from demo.process import command
from demo.school import School
from demo.screen import Screen
from demo.system import APPLICATIONS, Reports
from demo.verification import by_application, check_following, lag

WORKERS = 4
LEASE_SECONDS = 1
EVENTS = (150, 100)
"""The number of events that each tenant's Trainers and Kennels add while the runner is killed."""
FOLLOW_SECONDS = 60.0
THREADS = WORKERS + 5
CONNECTIONS = WORKERS + 2


def one_runner(database: Database, screen: Screen, schools: Sequence[School]) -> None:
    """Process the remaining events in a runner process; kill it with SIGKILL midway, and restart it."""
    screen.say(f"4/5  One runner for all: {WORKERS} workers, {len(schools)} tenants x {len(APPLICATIONS)} applications")
    words = ("runner", "start", "--workers", str(WORKERS), "--lease", str(LEASE_SECONDS))
    screen.say(f"       $ tenancy {' '.join(words)}")
    behind = _behind(database, schools)
    begin = time.monotonic()
    with (
        _process(words) as runner,
        peak_of(runner.num_threads) as threads,
        peak_of(lambda: _connections(runner)) as used,
    ):
        followed = _wait(lambda: _behind(database, schools) == 0)
        seconds = time.monotonic() - begin
    screen.check(
        followed and threads.value <= THREADS and used.value <= CONNECTIONS,
        f"{behind:,} events followed in {seconds:.1f} s, start included · {threads.value} threads · "
        f"{used.value or 'no'} connections",
        f"{_behind(database, schools):,} of {behind:,} events not followed after {seconds:.0f} s · {threads.value} "
        f"threads (at most {THREADS}) · {used.value} connections (at most {CONNECTIONS})",
    )
    more = [replace(school, trainers_events=EVENTS[0], kennels_events=EVENTS[1]) for school in schools]
    writing = Thread(target=together, args=([work for school in more for work in school.work],))
    with _process(words) as runner:
        before = _followed(database, schools)
        writing.start()
        _wait(lambda: _followed(database, schools) > before)
        runner.kill()
        runner.wait()
    writing.join()
    left = _behind(database, schools)
    screen.check(
        left > 0,
        f"kill -9 of the runner, {left:,} events before the end",
        "the runner had followed everything before it was killed",
    )
    with _process(words):
        _wait(lambda: _behind(database, schools) == 0)
    grown = [
        replace(
            school,
            trainers_events=school.trainers_events + EVENTS[0],
            kennels_events=school.kennels_events + EVENTS[1],
        )
        for school in schools
    ]
    check_following(screen, grown, by_application([school.placement for school in schools], read_tables(database)))


@contextmanager
def _process(words: Sequence[str]) -> Iterator[psutil.Process]:
    with subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _connections(process: psutil.Process) -> int:
    """Return the number of a process's open TCP connections."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))


def _behind(database: Database, schools: Sequence[School]) -> int:
    tables = by_application([school.placement for school in schools], read_tables(database))
    return sum(lag(school, tables) for school in schools)


def _followed(database: Database, schools: Sequence[School]) -> int:
    tables = by_application([school.placement for school in schools], read_tables(database))
    return sum(len(tables[school.placement, Reports.name].states) for school in schools)


def _wait(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + FOLLOW_SECONDS
    while not (done := is_so()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done

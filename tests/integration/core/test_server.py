"""The temporary PostgreSQL server starts, stops, and leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tenancy.testing import local_server
from tenancy.testing.local_server import ServerError, free_port
from tenancy.testing.postgresql import GivenPostgres, Postgres, PostgresServer, find_postgres, fresh_database
from tests.support.deadlines import wait_until
from tests.support.pgbouncer import PgBouncer

OWNER = """
import sys
from tenancy.testing.postgresql import find_postgres
server = find_postgres()
server.start()
print(server.directory, server.process.pid, flush=True)
sys.stdin.read()
"""
FORKING_OWNER = OWNER.replace("sys.stdin", "import os; os.fork(); sys.stdin")

BUSY = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%AS busy'"


def query(url: str, statement: str) -> object:
    """Run a statement on a new connection and return its first value, if any."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def nothing_left(directory: Path) -> bool:
    """Return whether the directory and its processes are gone."""
    mentions = (
        str(directory) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    )
    return not directory.exists() and not any(mentions)


def shared_memory(server: PostgresServer) -> tuple[str, list[Path]]:
    """Return a server's resources outside its directory: the id of a System V segment, and files."""
    assert server.process is not None
    segment = server.pid_file.read_text().splitlines()[6].split()[1]
    maps = psutil.Process(server.process.pid).memory_maps()
    return segment, [Path(entry.path) for entry in maps if "/PostgreSQL." in entry.path]


@contextmanager
def owner(script: str = OWNER) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run another process that owns a server; yield the process and the server's directory."""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True) as process:
        assert process.stdout is not None
        directory, pid = process.stdout.readline().split()
        assert psutil.pid_exists(int(pid))
        yield process, Path(directory)


def test_server_works_and_leaves_nothing(own_postgres_server: PostgresServer) -> None:
    server = own_postgres_server
    assert query(server.url(), "SHOW server_version") == server.version
    assert query(server.url(driver="psycopg"), "SHOW fsync") == "on"
    assert query(server.url(driver="pg8000"), "SHOW max_connections") == "200"
    assert query(f"{server.url()}?host={server.socket_directory}", "SELECT inet_client_addr()") is None
    server.close()
    assert nothing_left(server.directory)
    server.close()


def test_restart_keeps_data_and_port(own_postgres_server: PostgresServer) -> None:
    query(own_postgres_server.url(), "CREATE TABLE kept AS SELECT 1 AS a")
    own_postgres_server.restart()
    assert query(own_postgres_server.url(), "SELECT a FROM kept") == 1
    own_postgres_server.stop("immediate")
    own_postgres_server.start()
    assert query(own_postgres_server.url(), "SELECT a FROM kept") == 1


def test_killed_server_starts_again_with_what_it_acknowledged(own_postgres_server: PostgresServer) -> None:
    server = own_postgres_server
    query(server.url(), "CREATE TABLE kept (a int)")
    for number in range(3):
        query(server.url(), f"INSERT INTO kept VALUES ({number})")
        with ThreadPoolExecutor() as threads:
            # A busy backend does not notice that its postmaster died, and keeps the shared memory in use.
            busy = threads.submit(query, server.url(), "SELECT count(*) FROM generate_series(1, 1000000000) AS busy")
            wait_until(lambda: query(server.url(), BUSY) == 1, "the statement runs")
            server.kill()
            server.start()
            with pytest.raises(OperationalError):
                busy.result()
        assert query(server.url(), "SELECT count(*) FROM kept") == number + 1


def test_starting_twice_is_an_error(own_postgres_server: PostgresServer) -> None:
    with pytest.raises(ServerError, match=f"already running on port {own_postgres_server.port}"):
        own_postgres_server.start()


def test_error_carries_the_tail_of_the_log(own_postgres_server: PostgresServer) -> None:
    own_postgres_server.stop()
    (own_postgres_server.data_directory / "PG_VERSION").write_text("7\n")
    with pytest.raises(ServerError, match=r"did not start(?s:.)*not compatible with this version"):
        own_postgres_server.start()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's list of shared memory")
def test_killed_and_closed_server_leaves_no_shared_memory(own_postgres_server: PostgresServer) -> None:
    segment, files = shared_memory(own_postgres_server)
    assert files
    own_postgres_server.kill()
    own_postgres_server.close()
    assert segment not in [line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    assert not [path for path in files if path.exists()]


def test_exception_leaves_nothing(own_postgres_server: PostgresServer) -> None:
    server = PostgresServer(own_postgres_server.bin_directory)
    with pytest.raises(ZeroDivisionError), server:
        raise ZeroDivisionError
    assert nothing_left(server.directory)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_dead_owner_leaves_nothing(number: signal.Signals) -> None:
    with owner() as (process, directory):
        process.send_signal(number)
        process.wait()
        wait_until(lambda: nothing_left(directory), "nothing is left")


def test_fork_of_a_dead_owner_keeps_nothing_alive() -> None:
    # A pipe to the owner would stay open in the fork.
    with owner(FORKING_OWNER) as (process, directory):
        process.kill()
        process.wait()
        wait_until(lambda: nothing_left(directory), "nothing is left")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a server as another user")
def test_server_starts_from_a_directory_that_only_root_can_read(
    own_postgres_server: PostgresServer, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = own_postgres_server.bin_directory.parents[1]
    for source in (package, *package.parent.glob(f"{package.name}.*")):
        shutil.copytree(source, closed / source.name, symlinks=True)
    for path in closed.rglob("*"):  # Like a venv created with umask 077.
        path.chmod(path.stat().st_mode & 0o700)
    programs = closed / own_postgres_server.bin_directory.relative_to(package.parent)
    with PostgresServer(programs, source="embedded") as server:
        assert server.process is not None
        assert query(server.url(), "SHOW server_version") == server.version
        assert psutil.Process(server.process.pid).username() != "root"
    assert nothing_left(server.directory)


def test_given_url_is_used_unchanged(postgres_server: Postgres) -> None:
    with fresh_database(postgres_server) as name:
        url = postgres_server.url(name, "psycopg")
        server = find_postgres(url)
        assert isinstance(server, GivenPostgres)
        with server:
            assert server.url(driver="psycopg") == url
            assert query(server.url(), "SELECT current_database()") == name
            assert query(server.url(), "SHOW server_version_num") is not None
            assert server.version == postgres_server.version


def test_given_url_keeps_its_password() -> None:
    server = GivenPostgres("postgresql://user:p%40ss@host:1/shop")
    assert server.url() == "postgresql+psycopg2://user:p%40ss@host:1/shop"
    assert server.url("other", "psycopg") == "postgresql+psycopg://user:p%40ss@host:1/other"


def test_without_the_wheel_an_installed_postgresql_is_used(
    own_postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenancy.testing.postgresql.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(own_postgres_server.bin_directory))
    server = find_postgres()
    assert isinstance(server, PostgresServer)
    assert server.source == "installed"
    assert server.bin_directory == own_postgres_server.bin_directory.resolve()


def test_without_any_program_no_server_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tenancy.testing.postgresql.util.find_spec", lambda _: None)
    monkeypatch.setattr("tenancy.testing.postgresql.DEBIAN_DIRECTORY", tmp_path)
    monkeypatch.setenv("PATH", "")
    assert find_postgres() is None


def test_free_port_is_outside_of_the_range_of_outgoing_connections() -> None:
    outgoing = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(outgoing.read_text().split()[0]) if outgoing.exists() else 32768
    assert free_port() < lowest


def test_pgbouncer_pools_transactions(pgbouncer: PgBouncer, postgres_database: str) -> None:
    engine = create_engine(pgbouncer.url(postgres_database), pool_size=9)
    with ExitStack() as stack:
        connections = [stack.enter_context(engine.connect()) for _ in range(9)]
        backends = set()
        for connection in connections:
            backends.add(connection.scalar(text("SELECT pg_backend_pid()")))
            connection.commit()
    engine.dispose()
    assert 1 <= len(backends) <= 3


@pytest.fixture
def ignore_quit() -> Iterator[None]:
    """Ignore SIGQUIT, as a shell's background processes and their children do."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGQUIT, before)


@pytest.mark.usefixtures("ignore_quit")
def test_pgbouncer_stops_even_in_the_background(pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "STOP_SECONDS", 5.0)
    monkeypatch.setattr(pgbouncer, "kill", lambda: pytest.fail("it had to be killed"))
    pgbouncer.close()
    assert nothing_left(pgbouncer.directory)

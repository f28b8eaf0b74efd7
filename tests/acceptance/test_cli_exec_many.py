"""`tenancy exec` for many tenants: prefixed output, exit codes, parallel programs, and the end of a run."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.acceptance.commands import Command, Outcome
from tests.support.deadlines import wait_until

SLUG = 'ünï-cödé "x"'
WHO = "import os, sys; print(os.environ['TENANCY_TENANT']); print('warned', file=sys.stderr)"


@pytest.fixture(params=["sqlite", "postgres"])
def tenancy(request: pytest.FixtureRequest) -> Command:
    """The command on a database with tenants."""
    command = Command(request.getfixturevalue(f"{request.param}_url"))
    command.ok("create", "acme", SLUG, "--metadata", '{"plan": "free"}')
    command.ok("create", "globex")
    command.ok("create", "off")
    command.ok("suspend", "off")
    return command


def python(command: Command, *options: str, program: str = WHO) -> Outcome:
    return command("exec", *options, "--", sys.executable, "-c", program)


def test_each_line_begins_with_the_slug(tenancy: Command) -> None:
    ids = {each["slug"]: each["id"] for each in tenancy.ok("list", "--json").json}
    outcome = python(tenancy, "--all")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [f"{slug}: {ids[slug]}" for slug in ("acme", "globex", SLUG)]
    assert sorted(outcome.err.splitlines()) == sorted(f"{slug}: warned" for slug in ("acme", "globex", SLUG))
    outcome = python(tenancy, "--where", "plan=free", "--limit", "1")
    assert outcome.out.splitlines() == [f"acme: {ids['acme']}"]


def test_json_has_a_line_for_each_line_and_end(tenancy: Command) -> None:
    ids = {each["slug"]: each["id"] for each in tenancy.ok("list", "--json").json}
    outcome = python(tenancy, "--where", "plan=free", "--limit", "1", "--json", program="print('a'); exit(3)")
    tenant = {"tenant": "acme", "tenant_id": ids["acme"]}
    assert [json.loads(line) for line in outcome.out.splitlines()] == [
        {**tenant, "stream": "stdout", "line": "a"},
        {**tenant, "exit_code": 3},
    ]
    assert outcome.code == 1
    assert outcome.error["failures"][0]["tenant"] == "acme"


def fails_for(slug: str, command: Command) -> str:
    tenant_id = command.ok("show", slug, "--json").json["id"]
    return f"import os; print('run'); exit(42 if os.environ['TENANCY_TENANT'] == '{tenant_id}' else 0)"


def test_a_failure_is_reported_and_the_others_are_run(tenancy: Command) -> None:
    outcome = python(tenancy, "--all", program=fails_for("acme", tenancy))
    assert outcome.code == 7
    assert outcome.out.splitlines() == ["acme: run", "globex: run", f"{SLUG}: run"]
    assert "error: Failed for 1 of 3 tenants.\n" in outcome.err
    assert "The program of tenant 'acme' has exited with 42." in outcome.err


def test_a_run_stops_after_a_failure_when_asked_to(tenancy: Command) -> None:
    outcome = python(tenancy, "--all", "--stop", program=fails_for("globex", tenancy))
    assert (outcome.code, outcome.out.splitlines()) == (7, ["acme: run", "globex: run"])
    outcome = python(tenancy, "--all", "--stop", program=fails_for("acme", tenancy))
    assert (outcome.code, outcome.out.splitlines()) == (1, ["acme: run"]), "none has succeeded"


def test_a_tenant_that_cannot_be_read_is_a_failure(tenancy: Command) -> None:
    outcome = python(tenancy, "--status", "suspended")
    assert (outcome.code, outcome.out) == (1, "")
    assert "Tenant 'off' is suspended" in outcome.err
    assert python(tenancy, "--where", "plan=none").err == "No tenant fulfils the conditions.\n"


def test_programs_run_at_the_same_time(tenancy: Command, tmp_path: Path) -> None:
    """Each waits for the other one."""
    os.mkfifo(tmp_path / "meet")
    program = (
        f"import os, sys; path = {str(tmp_path / 'meet')!r}\n"
        "try:\n    os.mkdir(path + '.first')\nexcept FileExistsError:\n    print(open(path).read())\n"
        "else:\n    open(path, 'w').write('met')\n"
    )
    outcome = python(tenancy, "--where", "plan=free", "--parallel", "2", program=program)
    assert outcome.code == 0
    assert outcome.out in ("acme: met\n", f"{SLUG}: met\n")


def test_an_interrupt_ends_the_programs(tenancy: Command) -> None:
    program = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    process = tenancy.start(
        "exec", "--all", "--parallel", "2", "--", sys.executable, "-c", program, stdout=-1, stderr=-1
    )
    assert process.stdout is not None
    children = [int(process.stdout.readline().decode().rpartition(" ")[2]) for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Interrupted: 0 programs have succeeded, and 2 have failed or were ended." in errors
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the programs have ended")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["exec"], "No tenant was given."),
        (["exec", "--all"], "No program was given."),
        (["exec", "acme"], "No program was given."),
        (["exec", "acme", "--all", "--", "true"], "A slug and options that choose tenants were given."),
        (["exec", "acme", "--stop", "--", "true"], "--parallel, --stop and --limit need several tenants."),
        (["exec", "--all", "--status", "happy", "--", "true"], "There is no status 'happy'."),
        (["exec", "--where", "plan", "--", "true"], "not of the form KEY=VALUE"),
    ],
)
def test_other_arguments_are_refused(arguments: list[str], message: str, sqlite_url: str) -> None:
    command = Command(sqlite_url)
    command.ok("create", "acme")
    outcome = command(*arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_missing_program_ends_the_run_at_once(sqlite_url: str) -> None:
    command = Command(sqlite_url)
    command.ok("create", "acme", "globex")
    outcome = command("exec", "--all", "--", "/nowhere/program")
    assert outcome.code == 126
    assert "'/nowhere/program' cannot be run" in outcome.err

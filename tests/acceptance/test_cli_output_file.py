"""The output of a command can be written to a file, and a misused option leads to the help of its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.commands import Command

SLUG = 'ünï-cödé "x"'


@pytest.fixture
def command(sqlite_url: str) -> Command:
    """The command on a database with a tenant."""
    found = Command(sqlite_url)
    found.ok("create", SLUG)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"], ["list", "--json"], ["show", SLUG], ["history", SLUG], ["env", SLUG], ["doctor"], ["jobs", "list"],
        ["usage", "--json"], ["domains", "list"],
    ],
)  # fmt: skip
def test_the_file_has_the_output(arguments: list[str], command: Command, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("before " * 10_000)
    shown = command(*arguments)
    written = command(*arguments, "--output", str(path))
    assert (written.code, written.out, written.err) == (shown.code, "", shown.err)
    assert path.read_text(encoding="utf-8") == shown.out != ""
    assert command(*arguments, "--output", "-").out == shown.out


def test_a_failing_command_leaves_the_file(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("before")
    assert command("show", "unknown", "--output", str(path)).code == 3
    assert command("list", "--where", "plan", "--output", str(path)).code == 2
    assert path.read_text() == "before"


def test_an_exit_code_is_kept(command: Command, tmp_path: Path) -> None:
    Command(command.url).ok("suspend", SLUG)
    path = tmp_path / "doctor.json"
    broken = Command(command.url, app=None)
    shown = broken("doctor", "--json")
    assert broken("doctor", "--json", "--output", str(path)).code == shown.code
    assert json.loads(path.read_text())["findings"]


def test_a_path_that_cannot_be_written_is_named(command: Command, tmp_path: Path) -> None:
    outcome = command("list", "--output", str(tmp_path))
    assert outcome.code == 2
    assert f"'{tmp_path}' cannot be written: Is a directory." in outcome.err
    assert command("list", "--output", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    "arguments",
    [
        "create", "create a b --name X", "update acme", "update acme --set plan", "list --where plan", "rename acme",
        "purge", "list --created-after yesterday", "jobs run x:Y --parameters [1]",
    ],
)  # fmt: skip
def test_a_misused_option_leads_to_the_help_of_its_command(arguments: str, command: Command) -> None:
    words = arguments.split()
    verb = " ".join(words[:2]) if words[0] == "jobs" else words[0]
    outcome = command(*words)
    assert outcome.code == 2
    assert outcome.err.endswith(f"See: tenancy {verb} --help\n")

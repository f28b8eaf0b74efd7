"""Output in pipes and on terminals. Stored text cannot control the terminal."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.acceptance.commands import PROGRAM, Command
from tests.support.deadlines import wait_until

HOSTILE = "\x1b[2J\x1b]0;owned\x07 [red]x[/red] :smile: \u202eabc\r\n2nd"


@pytest.fixture
def tenancy(sqlite_url: str) -> Command:
    """The command on an empty database."""
    return Command(sqlite_url)


def names(count: int) -> list[str]:
    """Return slugs, some of them long, wide, or similar to markup."""
    return ["[red]x[red]", "[bold", "名前" * 20, "a" * 100, *(f"tenant-{number}" for number in range(count))]


class Terminal:
    """The command on a terminal with `columns` columns."""

    def __init__(
        self, command: Command, *arguments: str, columns: int = 80, variables: dict[str, str] | None = None
    ) -> None:
        self.output = ""
        environment = command.environment(COLUMNS=str(columns), TERM="xterm", **(variables or {}))
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*PROGRAM, *arguments], environment)  # noqa: S606 (the command)

    def read(self) -> bool:
        """Read available output; return False at the end."""
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # the other end is closed
            data = b""
        self.output += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, text: str) -> None:
        """Wait until the command has written a text."""
        while text not in self.output:
            assert self.read(), f"it ended with {self.output}"

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._descriptor, text.encode())

    def end(self) -> int:
        """Wait for the command to end, and return its exit code."""
        while self.read():
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(status)


pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of forkpty:DeprecationWarning")


# -- in pipes --


def test_every_tenant_is_one_line_in_a_pipe(tenancy: Command) -> None:
    tenancy.ok("create", *names(2))
    lines = tenancy.process("list", COLUMNS="20").out.splitlines()
    assert len(lines) == 1 + len(names(2))
    assert {line.split()[0] for line in lines[1:]} == set(names(2))
    assert not any(line.endswith(" ") for line in lines)


def test_stored_text_is_neither_markup_nor_a_terminal_command(tenancy: Command) -> None:
    tenancy.ok("create", "acme", "--name", HOSTILE, "--metadata", '{"a": "\\u001b[2J"}')
    tenancy.ok("suspend", "acme", "--reason", HOSTILE)
    shown = [tenancy.ok(*each).out for each in (("list",), ("show", "acme"), ("history", "acme"))]
    shown.append(tenancy("exec", "acme", "--", "true").err)
    for text in shown:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
        assert "[red]x[/red] :smile:" in text
        assert r"\u202eabc\r\n2nd" in text


def test_a_closed_pipe_ends_the_command_silently(tenancy: Command) -> None:
    tenancy.ok("create", "acme")
    for verb in ("list", "show acme --json", "--help", "create acme third --exist-ok"):
        read, write = os.pipe()
        os.close(read)
        process = tenancy.start(*verb.split(), stdout=write, stderr=-1)
        os.close(write)
        _, errors = process.communicate(timeout=60)
        assert (verb, errors.decode()) == (verb, "")
        assert process.returncode == 141, verb


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("list >&-", 0),
        ("list --json >&-", 0),
        ("--help >&-", 0),
        ("doctor >&- 2>&-", 0),
        ("purge acme <&-", 2),
        ("purge acme <&- >&- 2>&-", 2),
        ("create --from - <&-", 2),
        ("show unknown 2>&-", 3),
        ("exec acme -- true <&- >&- 2>&-", 0),
    ],
)
def test_a_closed_stream_is_no_error(tenancy: Command, arguments: str, code: int) -> None:
    tenancy.ok("create", "acme")
    done = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join(PROGRAM)} {arguments}"],
        env=tenancy.environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done
    assert b"Traceback" not in done.stderr


def test_letters_that_the_terminal_cannot_encode_are_escaped(tenancy: Command) -> None:
    tenancy.ok("create", "Ünï-cödé x")
    old = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    outcome = tenancy.process("list", **old)
    assert (outcome.code, outcome.err) == (0, "")
    assert r"\xfcn\xef-c\xf6d\xe9 x" in outcome.out
    assert tenancy.process("list", "--json", **old).json[0]["slug"] == "ünï-cödé x"


# -- on terminals --


@pytest.mark.parametrize("columns", [20, 200])
def test_nothing_is_lost_on_a_narrow_terminal(tenancy: Command, columns: int) -> None:
    tenancy.ok("create", "a" * 60, "[red]x[red]")
    terminal = Terminal(tenancy, "list", columns=columns)
    assert terminal.end() == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.output)
    assert plain.count("a") >= 60
    assert max(map(len, plain.splitlines())) <= columns
    if columns > 100:
        assert "[red]x[red]" in plain
        assert "\x1b[" in terminal.output


def test_a_very_long_name_is_truncated(tenancy: Command) -> None:
    tenancy.ok("create", "acme", "--name", "Q" * 5000)
    terminal = Terminal(tenancy, "list")
    assert terminal.end() == 0
    assert terminal.output.count("Q") == 200
    assert "…" in terminal.output
    for verb in ("list", "show acme"):
        assert tenancy.process(*verb.split()).out.count("Q") == 5000


def test_a_bar_is_shown_on_a_terminal_and_colours_only_if_wanted(tenancy: Command) -> None:
    terminal = Terminal(tenancy, "create", *names(3))
    assert terminal.end() == 0
    assert "Creating" in terminal.output
    terminal = Terminal(tenancy, "list", variables={"NO_COLOR": "1"})
    assert terminal.end() == 0
    assert not re.search(r"\x1b\[(3|9)", terminal.output)


@pytest.mark.parametrize(
    ("verb", "typed", "code", "left"),
    [
        ("purge acme", "acm\n", 1, ["acme", "globex"]),
        ("purge acme", "\n", 1, ["acme", "globex"]),
        ("purge acme", "", 1, ["acme", "globex"]),
        ("purge acme globex", "purge 2\n", 0, []),
        ("purge acme globex", "acme\n", 1, ["acme", "globex"]),
        ("delete acme", "acme\n", 0, ["acme", "globex"]),
        ("delete acme", "yes\n", 1, ["acme", "globex"]),
    ],
)
def test_destructive_verbs_need_the_slug(tenancy: Command, verb: str, typed: str, code: int, left: list[str]) -> None:
    tenancy.ok("create", "acme", "globex")
    outcome = tenancy(*verb.split(), typed=typed, is_terminal=True)
    assert outcome.code == code, outcome
    assert "Type " in outcome.err
    assert ("Nothing was " in outcome.err) is (code == 1)
    assert [each["slug"] for each in tenancy.ok("list", "--json").json] == left


def test_it_asks_on_a_real_terminal(tenancy: Command) -> None:
    tenancy.ok("create", "acme")
    for typed, code, left in (("\x04", 1, ["acme"]), ("\x03", 130, ["acme"]), ("acme\n", 0, [])):
        terminal = Terminal(tenancy, "purge", "acme")
        terminal.wait_for("Type the slug 'acme' to purge it: ")
        terminal.type(typed)
        assert terminal.end() == code, terminal.output
        assert "Traceback" not in terminal.output
        assert [each["slug"] for each in tenancy.ok("list", "--json").json] == left


def test_ctrl_c_ends_the_command_without_a_traceback(tenancy: Command, wait: Callable[[int], None]) -> None:
    process = tenancy.start("create", "--from", "-", stdin=-1, stdout=-1, stderr=-1)
    wait(process.pid)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, b"", b"")


def test_ctrl_c_reports_how_many_of_several_were_created(tenancy: Command) -> None:
    process = tenancy.start("create", "--from", "-", stdin=-1, stdout=-1, stderr=-1)
    assert process.stdin is not None
    process.stdin.write("\n".join(f"t-{number}" for number in range(3000)).encode())
    process.stdin.close()
    process.stdin = None
    wait_until(lambda: tenancy("show", "t-0").code == 0, "the first tenants are being created")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert re.fullmatch(
        r"error: Interrupted after creating \d+ of 3000 tenants\.\n +Repeat the command with --exist-ok\.\n",
        errors.decode(),
    )
    assert tenancy.ok("list", "--status", "provisioning", "--json").json == []


@pytest.fixture
def wait() -> Callable[[int], None]:
    """Wait until a process sleeps in a read of its standard input."""

    def is_reading(pid: int) -> bool:
        with open(f"/proc/{pid}/syscall", encoding="ascii") as file:  # noqa: PTH123 (a pseudo-file of the kernel)
            return file.read().startswith("0 0x0 ")

    return lambda pid: wait_until(lambda: is_reading(pid), "it reads its standard input")

"""Run the blocks of the documentation pages in order, as a reader does.

In a fenced block of

- ``python``, the code is run, in one namespace for the page. When the first line is a comment with the name of a file,
  the block is that file instead, and every page can import it. With a path, the file is written when the page gets to
  the block.
- ``text``, there is what the block of Python before it prints, or a command of the shell. ``...`` stands for anything.
- ``shell``, ``export`` and ``unset`` change the environment of the blocks that follow; ``pytest`` runs files that the
  pages show; ``tenancy`` is run, and must succeed, or end with the code that a comment ``# exits with 3`` says; of
  ``make``, the target must exist. Everything else is not run. What is printed is compared where a text follows, errors
  after the rest.
- ``sql``, the statements are run on the page's database.
- ``mermaid``, there is a diagram, which is not run.

A block that cannot be run has a comment before it: ``<!-- not run: why -->``.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.acceptance.commands import PROGRAM, Outcome, run_here

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

# The reader's databases in the pages.
POSTGRES: Final = "postgres@127.0.0.1/school"
PGBOUNCER: Final = "postgres@127.0.0.1:6432/school"

LANGUAGES: Final = ("python", "text", "shell", "sql", "mermaid")
_FENCE: Final = re.compile(r"^```(\w*)$")
_FILE: Final = re.compile(r"^# ([a-z_]+\.py)$")
_PATH: Final = re.compile(r"^# ([a-z_]+/[a-z0-9_/]+\.py)$")
_NOT_RUN: Final = re.compile(r"^<!-- not run: .+ -->$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; ``line`` is the number of its first line, counted from 1."""

    page: Path
    line: int
    language: str
    source: str
    is_run: bool = True

    @property
    def file(self) -> str | None:
        """The name of the file that the block shows, or None."""
        found = _FILE.match(self.source.partition("\n")[0]) if self.language == "python" else None
        return found[1] if found else None

    @property
    def path(self) -> str | None:
        """The path of the file that the block is, below the working directory, or None."""
        found = _PATH.match(self.source.partition("\n")[0]) if self.language == "python" else None
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return a page's blocks in order."""
    blocks: list[Block] = []
    fence: tuple[int, str, bool] | None = None
    before = ""
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        opened = _FENCE.match(line)
        if fence is None:
            if opened:
                fence, lines = (number + 1, opened[1], not _NOT_RUN.match(before)), []
            elif line.strip():
                before = line
        elif line == "```":
            blocks.append(Block(page, fence[0], fence[1], "".join(f"{text}\n" for text in lines), fence[2]))
            fence, before = None, ""
        else:
            lines.append(line)
    assert fence is None, f"{page}: a block that begins on line {fence and fence[0]} does not end"
    return blocks


@contextlib.contextmanager
def documented_files(directory: Path) -> Iterator[None]:
    """Write the files that the pages show into a directory from which they can be imported."""
    for page in PAGES:
        for block in blocks_of(page):
            if block.file is not None:
                path = directory / block.file
                assert not path.exists(), f"{block}: another block is called {block.file} too"
                # Padded to the block's line, so that an error shows the line of the page.
                path.write_text("\n" * (block.line - 1) + block.source, encoding="utf-8")
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))


class Reader:
    """Executes a page's blocks, which change this process's environment.

    ``replace`` substitutes the test databases for those in the pages; ``run_sql`` runs statements.
    """

    def __init__(self, page: Path, replace: Callable[[str], str], run_sql: Callable[[str], None]) -> None:
        # A module, because class topics contain its name.
        self._module = ModuleType(f"page_{page.stem.lower()}")
        self._replace = replace
        self._run_sql = run_sql

    def read(self, blocks: list[Block]) -> None:
        """Run the blocks. Raises a block's error, and AssertionError if the output differs from the page."""
        sys.modules[self._module.__name__] = self._module
        try:
            for block, following in zip(blocks, [*blocks[1:], None], strict=True):
                if not block.is_run or block.file is not None:
                    continue
                source = self._replace(block.source)
                if block.path is not None:
                    Path(block.path).write_text(source, encoding="utf-8")
                    continue
                has_text = following is not None and following.language == "text"
                shown = self._replace(following.source) if following is not None and has_text else ""
                if block.language == "python":
                    self._compare(block, self._run_python(block, source), shown)
                elif block.language == "shell":
                    printed = run_shell(source, str(block))
                    if has_text:
                        self._compare(block, printed, shown)
                elif block.language == "sql":
                    self._run_sql(source)
        finally:
            del sys.modules[self._module.__name__]

    def _run_python(self, block: Block, source: str) -> str:
        code = compile("\n" * (block.line - 1) + source, str(block.page), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, vars(self._module))  # noqa: S102 (our own documentation)
        return output.getvalue()

    @staticmethod
    def _compare(block: Block, printed: str, shown: str) -> None:
        # The width of a column depends on random names.
        columns = doctest.NORMALIZE_WHITESPACE if block.language == "shell" else 0
        is_same = doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS | columns)
        assert is_same, f"{block} prints\n{printed}\nbut the page shows\n{shown}"


def run_shell(source: str, where: str) -> str:
    """Run the supported commands of a shell block; return the output."""
    printed = ""
    for line in source.splitlines():
        for command in commands_of(line):
            if command[0] == "export":
                for assignment in command[1:]:
                    name, value = assignment.split("=", 1)
                    os.environ[name] = value
            elif command[0] == "unset":
                for name in command[1:]:
                    del os.environ[name]
            elif command[0] == "pytest":
                printed += _run_pytest(command[1:])
            elif command[0] == "tenancy":
                outcome = _run_tenancy(command[1:])
                expected = re.search(r"# exits with (\d+)$", line)
                assert outcome.code == int(expected[1] if expected else 0), f"{where}: {line}: {outcome}"
                printed += outcome.out + outcome.err
    return printed


def _run_tenancy(arguments: Sequence[str]) -> Outcome:
    if "exec" in arguments:  # would replace this process
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)
    outcome = run_here(arguments)
    sys.modules.pop("fleet", None)  # the command has closed its fleets
    return outcome


def _run_pytest(files: Sequence[str]) -> str:
    """Run pytest on files from the pages."""
    directory = next(each for each in sys.path if Path(each, files[0]).is_file())
    command = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-p", "no:randomly", *files]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False).stdout


def commands_of(source: str) -> list[list[str]]:
    """Return the words of each command of a shell block."""
    commands = [shlex.split(line, comments=True) for line in source.splitlines()]
    return [command for command in commands if command]

"""Run the command `tenancy`: in this process, which is faster, or as a separate process where that matters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

from tenancy.cli.run import run

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = (sys.executable, "-m", "tenancy")
KENNEL: Final = "tests.support.kennel_fleets"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command's exit code and output."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The parsed output."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error as JSON."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


class Typed(io.TextIOWrapper):
    """A standard input with typed text."""

    def __init__(self, text: str, *, is_terminal: bool) -> None:
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def run_here(arguments: Sequence[str], typed: str = "", *, is_terminal: bool = False) -> Outcome:
    """Run the command in this process; `typed` is its standard input."""
    stdin = Typed(typed, is_terminal=is_terminal)
    errors = io.StringIO()
    with (
        mock.patch.dict(os.environ),  # --url changes it
        mock.patch.object(sys, "stdin", stdin),
        mock.patch.object(sys, "path", list(sys.path)),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(errors),
    ):
        code = run(arguments)
    return Outcome(code, out.getvalue(), errors.getvalue())


@dataclass(frozen=True, slots=True)
class Command:
    """The command on one database, with or without the fleet's code."""

    url: str
    app: str | None = f"{KENNEL}:tenants"
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, typed: str = "", is_terminal: bool = False) -> Outcome:
        """Run it in this process; `typed` is its standard input."""
        with mock.patch.dict(os.environ, self._variables()):
            return run_here(arguments, typed, is_terminal=is_terminal)

    def ok(self, *arguments: str, typed: str = "") -> Outcome:
        """Run it in this process; fail unless it succeeds."""
        outcome = self(*arguments, typed=typed)
        assert outcome.code == 0, outcome
        return outcome

    def process(self, *arguments: str, typed: str = "", **variables: str) -> Outcome:
        """Run it as a process."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env=self.environment(**variables),
            input=typed.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it as a process."""
        return subprocess.Popen([*PROGRAM, *arguments], env=self.environment(), **options)

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the process's variables."""
        return {**os.environ, "PYTHONPATH": str(ROOT), **self._variables(), **variables}

    def _variables(self) -> dict[str, str]:
        app = {} if self.app is None else {"TENANCY_APP": self.app}
        return {"SQLALCHEMY_URL": self.url, **app, **self.variables}

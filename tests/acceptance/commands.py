"""The command `tenancy`: in this process, which is quick, or as a process, for what only a process shows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

from tenancy.cli.run import run

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = (sys.executable, "-m", "tenancy")
KENNEL: Final = "tests.acceptance.kennel"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it returned."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error that it wrote as JSON."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


@dataclass(frozen=True, slots=True)
class Command:
    """The command on one database, with or without the code of the fleet."""

    url: str
    app: str | None = f"{KENNEL}:tenants"
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, typed: str = "") -> Outcome:
        """Run it in this process; `typed` is its standard input, which is no terminal."""
        stdin = io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8")
        with (
            mock.patch.dict(os.environ, self._variables()),
            mock.patch.object(sys, "stdin", stdin),
            mock.patch.object(sys, "path", list(sys.path)),
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            code = run(arguments)
        return Outcome(code, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str, typed: str = "") -> Outcome:
        """Run it in this process, and see that it succeeds."""
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
        """Return the variables of its process."""
        return {**os.environ, "PYTHONPATH": str(ROOT), **self._variables(), **variables}

    def _variables(self) -> dict[str, str]:
        app = {} if self.app is None else {"TENANCY_APP": self.app}
        return {"SQLALCHEMY_URL": self.url, **app, **self.variables}

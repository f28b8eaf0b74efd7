"""Run the command: from arguments to an exit code. User errors do not show a traceback."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile

import typer

from tenancy.cli.app import URL_VARIABLE, app
from tenancy.cli.completion import is_completing
from tenancy.cli.errors import INTERRUPTED, masked, report_of
from tenancy.cli.output import CLOSED_PIPE

__all__ = ["hide_password", "run"]

_WITH_PASSWORD = re.compile(r"://[^/@]*:[^@]+@|[?&]password=")


def run(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal's encoding may lack characters of a slug
    ours = _ours(arguments)
    try:
        code: int | None = app(args=list(arguments), prog_name="tenancy", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit as error:  # Typer's reaction to a closed pipe, and the end of suggestions for a shell
        return int(error.code or 0) if is_completing() else CLOSED_PIPE
    except Exception as error:
        report = report_of(error)
        if report is None:
            raise
        if "--traceback" in ours:
            sys.stderr.write(masked(traceback.format_exc()))
        report.show(as_json="--json" in ours)
        return report.exit_code
    return code or 0


def _ours(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without those of the program that ``exec`` runs."""
    return list(takewhile(lambda argument: argument != "--", arguments))


def hide_password(arguments: Sequence[str]) -> None:
    """Re-execute the process with the URL in the environment when ``--url`` holds a password, because all users of a
    machine can read command lines.
    """
    ours = _ours(arguments)
    for number, argument in enumerate(ours):
        name, is_one_word, url = argument.partition("=")
        if name != "--url":
            continue
        if not is_one_word:
            url = ours[number + 1] if number + 1 < len(ours) else ""
        if _WITH_PASSWORD.search(url):
            rest = [*arguments[:number], *arguments[number + (1 if is_one_word else 2) :]]
            command = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)], *rest]
            os.execve(sys.executable, command, {**os.environ, URL_VARIABLE: url})  # noqa: S606 (ourselves)

"""Write a command's output to a file: all of it, or nothing when the command fails."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final

import typer

from tenancy.cli.errors import CommandError

__all__ = ["STDOUT", "written_to"]

STDOUT: Final = "-"
"""The file name that stands for standard output."""


@contextmanager
def written_to(path: str | None) -> Iterator[None]:
    """Write to a file what the block writes to standard output; raises CommandError for a path that is not writable.

    An existing file keeps its content until the block has ended without an error.
    """
    if path is None or path == STDOUT:
        yield
        return
    try:
        # Opened first: a long command must not fail at its end. Not replaced by another file: it may be a device.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    except OSError as error:
        raise _not_writable(path, error) from error
    with os.fdopen(descriptor, "wb") as file, tempfile.TemporaryFile() as new:
        text = io.TextIOWrapper(new, encoding="utf-8", errors="backslashreplace", write_through=True)
        ending: typer.Exit | None = None
        try:
            with redirect_stdout(text):
                yield
        except typer.Exit as error:  # no failure: the command has an exit code of its own
            ending = error
        new.seek(0)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                file.truncate(0)
            shutil.copyfileobj(new, file)
            file.flush()
        except OSError as error:
            raise _not_writable(path, error) from error
        if ending is not None:
            raise ending


def _not_writable(path: str, error: OSError) -> CommandError:
    msg = f"{path!r} cannot be written: {error.strerror}."
    return CommandError(msg, remedy="Pass the path of a file, or - for standard output.")

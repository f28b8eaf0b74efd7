"""Write a file beside its place, and move it there when it is complete."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from eventsourcing_sqlalchemy.errors import ArchiveError

__all__ = ["new_file"]


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write; it takes the place of ``path``, and is on the disk, when the block ends.

    After an error or a crash, ``path`` is as before. Raises ArchiveError if another process is writing it.
    """
    partial = path.with_name(f".{path.name}.partial")
    with _opened(partial, path) as file:
        try:
            _remove_side_files(partial)
            file.truncate(0)  # what a process that was killed had written
            yield partial
            _sync(partial)
            partial.replace(path)
            _sync(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            _remove_side_files(partial)
            raise


@contextmanager
def _opened(partial: Path, path: Path) -> Iterator[BinaryIO]:
    while True:
        with partial.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                msg = f"Another process is writing the archive {path}. Wait for it, or choose another file."
                raise ArchiveError(msg, path=str(path)) from None
            # Another process may have moved or removed it between the two calls.
            with suppress(FileNotFoundError):
                if partial.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    yield file
                    return


def _remove_side_files(path: Path) -> None:
    for suffix in ("-journal", "-wal", "-shm"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

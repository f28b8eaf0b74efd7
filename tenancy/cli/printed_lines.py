"""A standard stream whose lines become records of the log, for output that must contain nothing else."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from typing import Final, TextIO

__all__ = ["PrintedLines"]

_TRACEBACK: Final = "Traceback (most recent call last):"
_FRAME: Final = re.compile(r'\s*File ".*?([^/\\"]+)", line (\d+), in (\S+)')
_MAX_LINE: Final = 10_000


class PrintedLines(io.TextIOBase):
    """Writes each line to the log, and JSON objects unchanged to ``target``. Safe to use from many threads.

    A printed traceback becomes one record with the class of the error and its frames, without its message.
    """

    def __init__(self, name: str, logger: logging.Logger, target: TextIO) -> None:
        super().__init__()
        self._name = name
        self._logger = logger
        self._target = target
        # Guards the fields below. Reentrant: a signal handler may print, too.
        self._lock = threading.RLock()
        self._rest = ""
        # The frames of a traceback that is being printed.
        self._frames: list[str] | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the target, for child processes."""
        return self._target.fileno()

    def write(self, text: str) -> int:
        """Write text; incomplete lines wait for their end."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > _MAX_LINE:
                lines.append(self._rest)
                self._rest = ""
            for line in lines:
                self._take(line)
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is written when it ends."""

    def close(self) -> None:
        """Write an incomplete line; the target stays open."""
        with self._lock:
            line, self._rest = self._rest, ""
            if line:
                self._take(line)

    def _take(self, line: str) -> None:
        if line.startswith(_TRACEBACK):
            self._frames = []
        elif self._frames is not None and (line.startswith(" ") or not line):
            found = _FRAME.match(line)
            if found:
                self._frames.append(f"{found[1].removesuffix('.py')}:{found[3]}:{found[2]}")
        elif self._frames is not None:
            frames, self._frames = self._frames, None
            error = line.partition(":")[0]
            self._log("A traceback was printed: %s at %s", error, frames[-1] if frames else "an unknown place")
        elif _is_object(line):
            self._target.write(f"{line}\n")
            self._target.flush()
        elif line.strip():
            self._log("%s", line)

    def _log(self, message: str, *arguments: str) -> None:
        self._logger.info(message, *arguments, extra={"event": "output.printed", "stream": self._name})


def _is_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False

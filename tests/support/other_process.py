"""Another process that writes to a SQLite file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
for line in sys.stdin:
    connection.execute(line)
    print(connection.in_transaction, flush=True)
"""


class OtherProcess:
    """Another process with the file open, which does not use the package."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        """End the process, and wait for it."""
        self._process.communicate()

    def run(self, *statements: str) -> None:
        """Run statements, and return when they are done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for statement in statements:
            self._process.stdin.write(f"{statement}\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline(), "the statement failed"

    def insert(self, topic: str) -> None:
        """Record an event."""
        self.run(insert(topic))


def insert(topic: str) -> str:
    """Return the statement that records an event of the application Shop."""
    return (
        "INSERT INTO shop_events (originator_id, originator_version, topic, state) "
        f"VALUES (randomblob(16), 1, '{topic}', x'00')"
    )

"""PostgreSQL drivers are optional: without them, the package can be imported, and works on SQLite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USE = """
import sys

sys.modules["psycopg2"] = sys.modules["psycopg"] = None

from eventsourcing.application import Application
from eventsourcing.persistence import StoredEvent
from uuid import UUID

application = Application(
    env={
        "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
        "SQLALCHEMY_URL": "sqlite:///:memory:",
    }
)
application.recorder.insert_events([StoredEvent(UUID(int=1), 1, "topic", b"")])
print(application.recorder.max_notification_id())
"""


def test_sqlite_needs_neither_psycopg2_nor_psycopg() -> None:
    process = subprocess.run(
        [sys.executable, "-c", USE], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert (process.stdout, process.stderr) == ("1\n", "")

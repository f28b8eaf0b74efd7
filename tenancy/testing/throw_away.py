"""The throw-away database of a test session: its URL is known before the server is started."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tenancy.testing.postgresql import Postgres

__all__ = ["SERVER_VARIABLE", "ThrowAway"]

SERVER_VARIABLE: Final = "TEST_POSTGRES_URL"
"""The variable that names a running server."""

# Settings of a developer that would lead to another database.
_OTHERS: Final = ("TENANCY_CONTROL_URL", "SQLALCHEMY_CONNECTION_CREATOR_TOPIC", "SQLALCHEMY_LISTEN_URL")


class ThrowAway:
    """A database for one process of a test session. ``open`` creates it. The URL is empty if there is no server."""

    def __init__(self, kind: str) -> None:
        self._resources = ExitStack()
        self._is_open = False
        self._before: dict[str, str | None] = {}
        self.server: Postgres | None = None
        """The PostgreSQL server, which may not be started yet; None for SQLite, or if there is no server."""
        if kind == "sqlite":
            self._directory = Path(tempfile.gettempdir(), f"tenancy-{secrets.token_hex(6)}")
            self.url = f"sqlite:///{self._directory / 'fleet.db'}"
            return
        self.url, self._name = "", f"test_{secrets.token_hex(6)}"
        try:
            from tenancy.testing.postgresql import find_postgres  # noqa: PLC0415 (an extra; not needed in every session)
        except ImportError:
            return
        # Without fsync: tests do not crash the machine, and run several times as fast.
        self.server = find_postgres(os.environ.get(SERVER_VARIABLE), fsync=False)
        if self.server is not None:
            self.url = self.server.url(self._name)

    def set_variables(self) -> None:
        """Let the process's applications use the database, and no other."""
        for name, value in {"SQLALCHEMY_URL": self.url, **dict.fromkeys(_OTHERS, "")}.items():
            self.set_variable(name, value)

    def set_variable(self, name: str, value: str) -> None:
        """Set a variable until the database is closed."""
        self._before.setdefault(name, os.environ.get(name))
        os.environ[name] = value

    def open(self) -> None:
        """Create the database, and start the server if it is not running; idempotent."""
        if self._is_open:
            return
        self._is_open = True
        if self.server is None:
            self._directory.mkdir(mode=0o700)
            self._resources.callback(shutil.rmtree, self._directory, ignore_errors=True)
            return
        from tenancy.testing.postgresql import database  # noqa: PLC0415 (as above)

        self.start()
        self._resources.enter_context(database(self.server, self._name))

    def start(self) -> None:
        """Start the server if it is not running; idempotent."""
        if self.server is not None and not getattr(self.server, "is_running", True):
            self._resources.enter_context(self.server)

    def close(self) -> None:
        """Remove the database, stop the server that was started, and restore the variables; idempotent."""
        self._resources.close()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}

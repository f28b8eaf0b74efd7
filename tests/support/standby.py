"""A synchronous standby of a server, to take over when that is gone."""

from __future__ import annotations

import subprocess

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tenancy.testing.local_server import ServerError
from tenancy.testing.postgresql import PostgresServer
from tests.support.deadlines import wait_until


class Standby(PostgresServer):
    """A copy of a running primary that follows it. The primary acknowledges no commit before this has it."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(primary.bin_directory, source=primary.source, fsync=False)
        self._primary = primary

    def start(self) -> None:
        """Start, and return when the primary waits for this."""
        super().start()
        ask(self._primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        ask(self._primary, "SELECT pg_reload_conf()")
        in_step = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: ask(self._primary, in_step) == 1, "the primary waits for the standby")

    def promote(self) -> None:
        """Become a primary, and return when writes are taken."""
        assert ask(self, "SELECT pg_promote()"), self.log_tail()

    def _prepare(self) -> None:
        copy = [
            str(self.bin_directory / "pg_basebackup"),
            f"--pgdata={self.data_directory}",
            f"--dbname=host={self._primary.host} port={self._primary.port} user=postgres",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ]
        with self.log_file.open("ab") as log:
            result = subprocess.run(copy, check=False, cwd=self.directory, stdout=log, stderr=log, **self.as_user)
        if result.returncode != 0:
            raise ServerError(f"pg_basebackup failed with exit status {result.returncode}.\n{self.log_tail()}")


def ask(server: PostgresServer, statement: str) -> object:
    """Run a statement on a connection of its own and return what it selects, if anything."""
    engine = create_engine(server.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return result.scalar() if result.returns_rows else None

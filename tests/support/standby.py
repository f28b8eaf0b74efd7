"""A synchronous standby, which can take over when its primary fails."""

from __future__ import annotations

import subprocess

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tenancy.testing.local_server import ServerError
from tenancy.testing.postgresql import PostgresServer
from tests.support.deadlines import wait_until


class Standby(PostgresServer):
    """A replica of a running primary, which acknowledges no commit before the replica has it."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(primary.bin_directory, source=primary.source, fsync=False)
        self._primary = primary

    def start(self) -> None:
        """Start, and return when the primary waits for the standby."""
        super().start()
        ask(self._primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        ask(self._primary, "SELECT pg_reload_conf()")
        in_step = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: ask(self._primary, in_step) == 1, "the primary waits for the standby")

    def promote(self) -> None:
        """Promote the standby, and return when it accepts writes."""
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
    """Run a statement on a new connection and return the selected value, if any."""
    engine = create_engine(server.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return result.scalar() if result.returns_rows else None

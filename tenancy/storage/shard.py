"""A database that holds tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import OperationalError
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.settings import Settings, mask
from tenancy.errors import TenancyClosed, TenancyError
from tenancy.isolation.connections import open_datastore
from tenancy.model.placement import Placement

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from tenancy.settings import TenancySettings

__all__ = ["DEFAULT", "Shard", "check_exists", "ping"]

DEFAULT: Final = "default"
"""The name of a fleet's only shard."""

# These variables describe one application's tables, not the connection.
_OF_APPLICATIONS: Final = ("SCHEMA", "TABLE_PREFIX", "SCOPED_SESSION_TOPIC", "ENGINE_TOPIC", "CONNECTION_CREATOR_TOPIC")


def check_exists(datastore: SQLAlchemyDatastore, url: URL) -> None:
    """Raise OperationalError for a database that the first connection would create."""
    if datastore.dialect.is_created_by_connecting(url):
        raise OperationalError(f"The database {mask(url)} does not exist.")


def ping(datastore: SQLAlchemyDatastore, url: URL) -> None:
    """Ask a database something; raises an error if it cannot be used, or does not exist."""
    check_exists(datastore, url)
    datastore.run(datastore.dialect.server_version)


class Shard:
    """A named database of tenants: the only holder of its datastore. Safe to use from many threads."""

    def __init__(self, settings: TenancySettings, name: str = DEFAULT) -> None:
        self.name = name
        self.settings = settings
        environment = {
            key: value
            for key, value in settings.environment.items()
            if key.startswith("SQLALCHEMY_") and not key.endswith(_OF_APPLICATIONS)
        }
        self._datastore = open_datastore(settings, Settings.read(Environment("", environment)).engine)
        self._is_closed = False
        dialect = self._datastore.dialect
        self.is_file_of_registry = not dialect.is_server and dialect.identity(settings.url) == dialect.identity(
            settings.control_url
        )
        """Whether the registry is in the same SQLite file, which has one writer: the registry's transaction."""

    def close(self) -> None:
        """Release the engine; idempotent."""
        self._is_closed = True
        self._datastore.close()

    @property
    def datastore(self) -> SQLAlchemyDatastore:
        """The connections to the database; raises TenancyClosed after close()."""
        if self._is_closed:
            raise TenancyClosed
        return self._datastore

    def ping(self) -> None:
        """Ask the database something, on a connection of the pool; raises an error if it cannot be used."""
        ping(self.datastore, self.settings.url)

    @property
    def identifier_limit(self) -> int | None:
        """The most bytes that a name may have in this database."""
        return self.datastore.dialect.identifier_limit

    @property
    def default_schema(self) -> str | None:
        """The schema of tables that name none."""
        return self.datastore.default_schema()

    def default_schema_of(self, placement: Placement) -> str | None:
        """Return the schema of a placement's tables that name none; None, without connecting, if it has a schema."""
        return None if placement.schema else self.default_schema

    def check(self, placement: Placement) -> None:
        """Raise TenancyError for a placement that is impossible in this database."""
        if placement.schema is not None and not self.datastore.dialect.has_schemas:
            msg = f"The schema {placement.schema!r} cannot be used: this database has no schemas."
            raise TenancyError(msg, remedy="Pass a table prefix instead.")
        for template in (placement.schema or "", placement.table_prefix):
            if "{" in template.replace("{application}", "") or "}" in template.replace("{application}", ""):
                msg = f"{template!r} cannot be used: the only placeholder is {{application}}."
                raise TenancyError(msg, remedy="Remove the other braces.")

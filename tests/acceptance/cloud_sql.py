"""A stand-in for the Cloud SQL connector, which needs an account: its ``connect`` reaches our own server."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pg8000.dbapi
from sqlalchemy import URL

INSTANCE = "our-project:our-region:our-instance"
USER = "school"
DATABASE = "school"


def connector_modules(url: URL) -> dict[str, ModuleType]:
    """Return the modules for ``from google.cloud.sql.connector import Connector``; ``url`` is the database's."""

    class Connector:
        """Accepts the real connector's arguments that the page uses."""

        def connect(self, instance_connection_string: str, driver: str, *, user: str, db: str, **options: Any) -> Any:
            assert (instance_connection_string, driver, user, db) == (INSTANCE, "pg8000", USER, DATABASE)
            assert set(options) <= {"enable_iam_auth", "password"}
            return pg8000.dbapi.connect(
                user=url.username or "postgres",
                password=url.password,
                host=url.host or "127.0.0.1",
                port=url.port or 5432,
                database=url.database,
            )

        def close(self) -> None:
            """Do nothing."""

    names = ("google", "google.cloud", "google.cloud.sql", "google.cloud.sql.connector")
    modules = {name: ModuleType(name) for name in names}
    vars(modules[names[-1]])["Connector"] = Connector
    return modules

"""A psycopg2 cursor that prepares statements, because psycopg2 does not prepare by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from psycopg2 import Error, extensions

from eventsourcing_sqlalchemy.dialects.postgresql.prepared import RETRY_UNPREPARED, PreparedStatements

__all__ = ["PreparingCursor"]


class PreparingCursor(extensions.cursor):
    """Prepares statements; set ``statements`` on each instance."""

    statements: PreparedStatements

    def execute(self, query: Any, vars: Sequence[Any] | None = None) -> None:  # type: ignore[override]  # noqa: A002 (psycopg2's names)
        # In a transaction, a statement missing on the server would abort the transaction.
        if vars is None or self.connection.info.transaction_status != 0:
            super().execute(query, vars)
            return
        prepare, prepared = self.statements.find(query)
        try:
            if prepare:
                super().execute(prepare)
            super().execute(query if prepared is None else prepared.execute, vars)
        except Error as error:
            if prepared is None or error.pgcode not in RETRY_UNPREPARED:
                raise
            # Nothing was committed, so a retry is safe.
            name = self.statements.discard(query)
            with suppress(Error):  # it may not exist
                super().execute(f"DEALLOCATE {name}")
            super().execute(query, vars)

    def execute_once(self, query: Any, parameters: Sequence[Any]) -> None:
        """Run a statement without preparing it."""
        super().execute(query, parameters)

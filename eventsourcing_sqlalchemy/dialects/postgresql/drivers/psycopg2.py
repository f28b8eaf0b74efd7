"""Connections of psycopg2."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from eventsourcing_sqlalchemy.dialects.postgresql.drivers.base import Driver
from eventsourcing_sqlalchemy.dialects.postgresql.prepared import PreparedStatements

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.dialects.postgresql.drivers.psycopg2_cursor import PreparingCursor

__all__ = ["Psycopg2"]


class Psycopg2(Driver):
    """See :class:`Driver`."""

    can_listen = True
    prepares = True
    probes_hstore = True

    def __init__(self) -> None:
        self._prepared: WeakKeyDictionary[Any, PreparedStatements] = WeakKeyDictionary()

    def prepare(self, connection: Any, mode: Literal["on", "off"]) -> None:
        if mode == "on":
            self._prepared[connection] = PreparedStatements()

    def cursor(self, connection: Any) -> Any:
        statements = self._prepared.get(connection)
        if statements is None:
            return connection.cursor()
        cursor = connection.cursor(cursor_factory=_preparing_cursor())
        cursor.statements = statements
        return cursor

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        getattr(cursor, "execute_once", cursor.execute)(statement, parameters or None)

    def fileno(self, connection: Any) -> int | None:
        return int(connection.fileno())

    def is_idle(self, connection: Any) -> bool:
        return bool(connection.get_transaction_status() == 0)

    def backend_pid(self, connection: Any) -> int | None:
        return int(connection.info.backend_pid)

    def parameter(self, connection: Any, name: str) -> str | None:
        value: str | None = connection.info.parameter_status(name)
        return value

    def use_utf8(self, connection: Any) -> None:
        connection.set_client_encoding("UTF8")  # unlike SET, it updates the driver's state

    def remember(self, connection: Any) -> tuple[Any, ...]:
        return connection.encoding, connection.cursor_factory, connection.readonly, connection.deferrable

    def reset(self, connection: Any, initial_state: tuple[Any, ...]) -> None:
        encoding, connection.cursor_factory, *modes = initial_state
        if connection.encoding != encoding:
            connection.set_client_encoding(encoding)
        if [connection.readonly, connection.deferrable] != modes:
            readonly, deferrable = ("DEFAULT" if mode is None else mode for mode in modes)
            connection.set_session(readonly=readonly, deferrable=deferrable)

    def load(self, connection: Any, statement: str, rows: bytes) -> None:
        with connection.cursor() as cursor:
            cursor.copy_expert(statement, BytesIO(rows))

    def notifications(self, connection: Any) -> list[str]:
        connection.poll()
        payloads = [notify.payload for notify in connection.notifies]
        connection.notifies.clear()
        return payloads


@cache
def _preparing_cursor() -> type[PreparingCursor]:
    from eventsourcing_sqlalchemy.dialects.postgresql.drivers.psycopg2_cursor import (  # noqa: PLC0415 (imports the driver)
        PreparingCursor,
    )

    return PreparingCursor

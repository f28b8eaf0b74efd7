"""Connections of pg8000."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any, Final

from eventsourcing_sqlalchemy.dialects.postgresql.drivers.base import Driver

__all__ = ["Pg8000"]

_BYTEA: Final = 17  # the type's oid


class Pg8000(Driver):
    """See :class:`Driver`."""

    takes_several_hosts = False
    escapes_percent_in_quotes = False
    splits_statements = True

    def connect_arguments(self, connect_timeout: float | None) -> dict[str, Any]:
        return {"timeout": connect_timeout} if connect_timeout else {}

    def connected(self, connection: Any, connect_timeout: float) -> None:
        # Keep any other timeout: the user has set it.
        if connection._usock.gettimeout() == connect_timeout:  # noqa: SLF001 (no public API)
            connection._usock.settimeout(None)  # noqa: SLF001 (as above)
        connection.register_in_adapter(_BYTEA, parse_bytea)

    def fileno(self, connection: Any) -> int | None:
        return int(connection._usock.fileno())  # noqa: SLF001 (no public API)

    def is_idle(self, connection: Any) -> bool:
        # None before the first statement.
        return connection._transaction_status in (None, b"I")  # noqa: SLF001 (no public API)

    def backend_pid(self, connection: Any) -> int | None:
        # Process id and secret key. A pooler may announce none, which yields 0.
        return int.from_bytes((connection._backend_key_data or b"")[:4], "big")  # noqa: SLF001 (as above)

    def parameter(self, connection: Any, name: str) -> str | None:
        value: str | None = connection.parameter_statuses.get(name)
        return value

    def load(self, connection: Any, statement: str, rows: bytes) -> None:
        cursor = connection.cursor()
        cursor.execute(statement, stream=BytesIO(rows))
        cursor.close()


def parse_bytea(text: str) -> bytes:
    """Parse a bytea in either format of ``bytea_output``."""
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    return re.sub(rb"\\([0-7]{3}|\\)", _unescape, text.encode("ascii"))


def _unescape(match: re.Match[bytes]) -> bytes:
    escaped = match[1]
    return escaped if escaped == b"\\" else bytes([int(escaped, 8)])

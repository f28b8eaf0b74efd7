"""Read and write whole tables of PostgreSQL: COPY in the binary format, which takes no parsing.

Its layout, big-endian: a signature, flags and the length of an extension; for each row the number of fields, then
length and bytes of each; -1 as the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from eventsourcing.persistence import NotSupportedError

from eventsourcing_sqlalchemy.dialects.protocols import Executor, RowTransfer
from eventsourcing_sqlalchemy.engine_settings import OriginatorIDType
from eventsourcing_sqlalchemy.naming import TableName

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_FIELDS: Final = Struct("!h").pack
_LENGTH: Final = Struct("!i").pack
_BIGINT: Final = Struct("!iq").pack
_INTEGER: Final = Struct("!ii").pack


class PostgreSQLRowTransfer(RowTransfer):
    """See :class:`RowTransfer`."""

    begin_snapshot = ("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",)

    def select_originator_id(self, originator_id_type: OriginatorIDType) -> str:
        return "uuid_send(originator_id)" if originator_id_type == "uuid" else "originator_id"

    def originator_id_parameter(self, originator_id_type: OriginatorIDType) -> str:
        # A bytea cannot be cast to uuid.
        return "encode(%s::bytea, 'hex')::uuid" if originator_id_type == "uuid" else "%s::text"

    def insert(
        self, executor: Executor, table: TableName, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]
    ) -> None:
        pack = [_packer(table, column, column_type) for column, column_type in columns.items()]
        count = _FIELDS(len(columns))
        parts = [_HEADER]
        for row in rows:
            parts.append(count)
            parts += [field(value) for field, value in zip(pack, row, strict=True)]
        parts.append(_END)
        executor.load(
            f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary, ENCODING 'UTF8')", b"".join(parts)
        )


def _packer(table: TableName, column: str, column_type: str) -> Callable[[Any], bytes]:
    if column_type in _PACKERS:
        return _PACKERS[column_type]
    msg = f"The table {table} has the column {column} of type {column_type}, which cannot be loaded in bulk."
    raise NotSupportedError(msg)


def _bytes(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


@lru_cache(maxsize=1024)
def _text(value: str) -> bytes:
    return _bytes(value.encode())


_PACKERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "int8": lambda value: _BIGINT(8, value),
    "int4": lambda value: _INTEGER(4, value),
    "uuid": _bytes,
    "text": _text,
    "varchar": _text,
    "bytea": _bytes,
}

"""Connections of psycopg (version 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from weakref import WeakKeyDictionary

from eventsourcing.persistence import ProgrammingError

from eventsourcing_sqlalchemy.dialects.postgresql.arrays import BINARY_ARRAYS, BinaryArray, transcode
from eventsourcing_sqlalchemy.dialects.postgresql.drivers.base import Driver
from eventsourcing_sqlalchemy.dialects.postgresql.prepared import PreparedStatements

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.dialects.postgresql.drivers.psycopg_cursor import PsycopgCursor

__all__ = ["Psycopg"]

# Attributes of a psycopg connection that a user may set and SQLAlchemy does not restore.
_PSYCOPG_ATTRIBUTES: Final = ("cursor_factory", "row_factory", "prepare_threshold", "read_only", "deferrable")


class Psycopg(Driver):
    """See :class:`Driver`."""

    can_listen = True
    prepares = True
    takes_binary_arrays = True
    reads_uuids = True

    def __init__(self) -> None:
        self._statements: WeakKeyDictionary[Any, PreparedStatements] = WeakKeyDictionary()

    def connected(self, connection: Any, connect_timeout: float) -> None:
        from psycopg import Connection  # noqa: PLC0415 (the driver is an extra)

        for cls, dumper in _binary_dumpers():
            connection.adapters.register_dumper(cls, dumper)
        if type(connection) is Connection:
            self._statements[connection] = PreparedStatements(is_on=False)

    def fileno(self, connection: Any) -> int | None:
        return int(connection.fileno())

    def is_idle(self, connection: Any) -> bool:
        return bool(connection.pgconn.transaction_status == 0)

    def backend_pid(self, connection: Any) -> int | None:
        return int(connection.info.backend_pid)

    def prepare(self, connection: Any, mode: Literal["on", "off"]) -> None:
        # For users' own statements: the driver prepares a statement on its sixth run, its default; None disables this.
        connection.prepare_threshold = 5 if mode == "on" else None
        if connection in self._statements:
            self._statements[connection] = PreparedStatements(is_on=mode == "on")

    def cursor(self, connection: Any) -> Any:
        _check_pipeline(connection)
        return _psycopg_cursor()(connection, self._statements.get(connection))

    def execute_once(self, cursor: Any, statement: str, parameters: Sequence[Any]) -> None:
        cursor.execute_once(statement, parameters)

    def parameter(self, connection: Any, name: str) -> str | None:
        value: str | None = connection.info.parameter_status(name)
        return value

    def remember(self, connection: Any) -> tuple[Any, ...]:
        return tuple(getattr(connection, name) for name in _PSYCOPG_ATTRIBUTES)

    def reset(self, connection: Any, initial_state: tuple[Any, ...]) -> None:
        _check_pipeline(connection)
        for name, value in zip(_PSYCOPG_ATTRIBUTES, initial_state, strict=True):
            setattr(connection, name, value)

    def run_script(self, connection: Any, script: str) -> None:
        connection.execute(script, prepare=False)

    def load(self, connection: Any, statement: str, rows: bytes) -> None:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(rows)

    def notifications(self, connection: Any) -> list[str]:
        return [notify.payload for notify in connection.notifies(timeout=0)]


def _check_pipeline(connection: Any) -> None:
    if connection.pgconn.pipeline_status:
        msg = (
            "The connection is in pipeline mode, where results arrive too late. Leave the pipeline before returning it."
        )
        raise ProgrammingError(msg)


@cache
def _psycopg_cursor() -> type[PsycopgCursor]:
    from eventsourcing_sqlalchemy.dialects.postgresql.drivers.psycopg_cursor import PsycopgCursor  # noqa: PLC0415 (as above)

    return PsycopgCursor


@cache
def _binary_dumpers() -> tuple[tuple[type[BinaryArray], type[Any]], ...]:
    from psycopg import adapt, pq  # noqa: PLC0415 (the driver is an extra)

    class Unchanged(adapt.Dumper):
        format = pq.Format.BINARY

        def dump(self, obj: Any) -> bytes:
            return cast("bytes", obj)

    class Transcoded(Unchanged):
        def dump(self, obj: Any) -> bytes:
            encoding = self.connection.info.encoding if self.connection else "utf-8"
            return cast("bytes", obj) if encoding == "utf-8" else transcode(obj, encoding)

    return tuple(
        (cls, type(cls.__name__, (Transcoded if cls.holds_text else Unchanged,), {"oid": cls.oid}))
        for cls in BINARY_ARRAYS
    )

"""Limits of reads from PostgreSQL: libpq receives the rows, which are not decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

from benchmarks import reading
from benchmarks.events import COLUMNS
from benchmarks.measurement import Measurement, require

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place

_NAME = b"benchmark"
_Item = TypeVar("_Item")


class _Unread(Sequence[_Item]):
    """A result that decodes the rows in libpq's memory on first access, which is after the measurement."""

    def __init__(self, result: PGresult, make: Callable[[PGresult], list[_Item]]) -> None:
        self._result = result
        self._make = make

    @cached_property
    def _items(self) -> list[_Item]:
        return self._make(self._result)

    def __len__(self) -> int:
        return self._result.ntuples

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]


class _Query:
    """A prepared statement, run by the driver's libpq, which blocks until all rows have arrived."""

    def __init__(self, place: Place, columns: str, rest: str) -> None:
        from psycopg.adapt import Transformer

        self._connection = place.connect()
        self._libpq = self._connection.pgconn
        self._transformer = Transformer(self._connection)
        prepared = self._libpq.prepare(_NAME, f"SELECT {columns} FROM public.stored_events {rest}".encode())
        require(prepared.error_message == b"", prepared.error_message.decode())

    def run(self, *parameters: bytes) -> PGresult:
        """Return the result; parameters and rows use the binary format."""
        result: PGresult = self._libpq.exec_prepared(_NAME, parameters, [1] * len(parameters), 1)
        return result

    def rows(self, result: PGresult) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a result."""
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def aggregates(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R1: a recorder's statement."""
    query = _Query(place, "originator_version, topic, state", "WHERE originator_id = $1 ORDER BY originator_version")

    def select(originator_id: UUID) -> Sequence[StoredEvent]:
        return _Unread(
            query.run(originator_id.bytes),
            lambda result: [StoredEvent(originator_id, *row) for row in query.rows(result)],
        )

    result = reading.measure_aggregates(scenario.number, size, select)
    query.close()
    return result


def pages(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R2: a recorder's statement."""
    query = _Query(place, f"id, {COLUMNS}", "WHERE id >= $1::bigint ORDER BY id LIMIT $2::bigint")
    limit = scenario.number.to_bytes(8, "big")

    def notifications(result: PGresult) -> list[Notification]:
        return [
            Notification(originator_id, version, topic, state, number)
            for number, originator_id, version, topic, state in query.rows(result)
        ]

    result = reading.measure_pages(
        scenario.number, size, lambda start: _Unread(query.run(start.to_bytes(8, "big"), limit), notifications)
    )
    query.close()
    return result

"""What PostgreSQL and its client library can do for a read: the rows arrive in memory, and nobody looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

from benchmarks import reading
from benchmarks.measurement import Measurement, require

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place

_NAME = b"benchmark"


class _Query:
    """A prepared statement on a connection of the driver, run by its libpq, which blocks until all rows are there."""

    def __init__(self, place: Place, columns: str, rest: str) -> None:
        from psycopg.adapt import Transformer

        self._connection = place.connect()
        self._libpq = self._connection.pgconn
        self._transformer = Transformer(self._connection)
        prepared = self._libpq.prepare(_NAME, f"SELECT {columns} FROM public.stored_events {rest}".encode())
        require(prepared.error_message == b"", prepared.error_message.decode())

    def run(self, *parameters: bytes) -> PGresult:
        """Return the result; parameters and rows are in the binary format."""
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
    """R1: the statement of a recorder."""
    query = _Query(place, "originator_version, topic, state", "WHERE originator_id = $1 ORDER BY originator_version")

    def events(originator_id: UUID, result: PGresult) -> list[StoredEvent]:
        return [StoredEvent(originator_id, *row) for row in query.rows(result)]

    result = reading.measure_aggregates(scenario.number, size, lambda id_: query.run(id_.bytes), events)
    query.close()
    return result


def pages(scenario: Scenario, place: Place, size: Size) -> Measurement:
    """R2: the statement of a recorder."""
    columns = "id, originator_id, originator_version, topic, state"
    query = _Query(place, columns, "WHERE id >= $1::bigint ORDER BY id LIMIT $2::bigint")
    limit = scenario.number.to_bytes(8, "big")

    def notifications(result: PGresult) -> list[Notification]:
        return [
            Notification(originator_id, version, topic, state, number)
            for number, originator_id, version, topic, state in query.rows(result)
        ]

    result = reading.measure_pages(
        scenario.number, size, lambda start: query.run(start.to_bytes(8, "big"), limit), notifications
    )
    query.close()
    return result

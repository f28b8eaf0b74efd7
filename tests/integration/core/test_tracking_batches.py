"""Many positions in one transaction: the first and the last are written, and all are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from eventsourcing.persistence import DataError, IntegrityError, ProgrammingError, Tracking

from eventsourcing_sqlalchemy.recorders import ConditionalTracking, SQLAlchemyProcessRecorder
from tenancy.testing.postgresql import Postgres
from tests.support.applications import Applications

UPSTREAM = "upstream"


@pytest.fixture(params=["psycopg2", "psycopg", "pg8000", "sqlite"])
def recorder(request: pytest.FixtureRequest) -> Iterator[SQLAlchemyProcessRecorder]:
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.url(request.getfixturevalue("postgres_database"), request.param)
    with Applications(url) as applications:
        yield applications.recorder()


def position(recorder: SQLAlchemyProcessRecorder, name: str = UPSTREAM) -> int | None:
    return recorder.max_tracking_id(name)


@pytest.mark.parametrize("before", [0, 2])
def test_last_positions_are_committed_together(recorder: SQLAlchemyProcessRecorder, before: int) -> None:
    if before:
        recorder.insert_tracking(Tracking(UPSTREAM, before))
    with recorder.batch() as session:
        for number in range(3, 10):
            recorder.insert_tracking(Tracking(UPSTREAM, number))
            assert position(recorder) == number
        recorder.insert_tracking(Tracking("other", 4))
        with recorder.transaction() as inner:
            assert inner is session
            recorder.insert_tracking(ConditionalTracking(UPSTREAM, 12, 9))
    assert (position(recorder), position(recorder, "other")) == (12, 4)


def test_only_first_and_last_are_written(recorder: SQLAlchemyProcessRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = type(recorder)._write_tracking  # noqa: SLF001 (whose calls are counted)

    def counted(self: Any, session: Any, tracking: Tracking) -> None:
        written.append(tracking.notification_id)
        write(self, session, tracking)

    monkeypatch.setattr(type(recorder), "_write_tracking", counted)
    with recorder.batch():
        for number in range(1, 100):
            recorder.insert_tracking(Tracking(UPSTREAM, number))
    assert written == [1, 99]
    assert position(recorder) == 99


@pytest.mark.parametrize("refused", [Tracking(UPSTREAM, 5), Tracking(UPSTREAM, 4), ConditionalTracking(UPSTREAM, 9, 6)])
def test_position_that_is_not_ahead_is_refused(recorder: SQLAlchemyProcessRecorder, refused: Tracking) -> None:
    with recorder.batch():
        recorder.insert_tracking(Tracking(UPSTREAM, 3))
        recorder.insert_tracking(Tracking(UPSTREAM, 5))
        with pytest.raises(IntegrityError):
            recorder.insert_tracking(refused)
        with pytest.raises(DataError):
            recorder.insert_tracking(Tracking(UPSTREAM, 2**63))
    assert position(recorder) == 5
    with pytest.raises(IntegrityError), recorder.batch():
        recorder.insert_tracking(refused if refused.notification_id < 6 else Tracking(UPSTREAM, 5))


def test_failed_batch_records_nothing(recorder: SQLAlchemyProcessRecorder) -> None:
    recorder.insert_tracking(Tracking(UPSTREAM, 1))

    def fail() -> None:
        with recorder.batch():
            recorder.insert_tracking(Tracking(UPSTREAM, 2))
            recorder.insert_tracking(Tracking(UPSTREAM, 3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert position(recorder) == 1
    recorder.insert_tracking(Tracking(UPSTREAM, 2))


def test_a_batch_that_ignored_the_error_of_a_block_is_rolled_back(recorder: SQLAlchemyProcessRecorder) -> None:
    """By itself, the block would have been rolled back, and the rest committed."""

    def record() -> None:
        with recorder.batch():
            recorder.insert_tracking(Tracking(UPSTREAM, 1))
            with suppress(ValueError), recorder.transaction():
                recorder.insert_tracking(Tracking(UPSTREAM, 2))
                raise ValueError
            recorder.insert_tracking(Tracking(UPSTREAM, 3))

    with pytest.raises(ProgrammingError, match="one by one"):
        record()
    assert position(recorder) is None

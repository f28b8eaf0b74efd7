"""Stored events and arguments of wrong types: nothing is written, and the recorder stays usable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import DataError, PersistenceError, StoredEvent, Tracking
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.support.applications import Applications, stored_events, topics

NUL = "nul\0"
SURROGATE = "surrogate\udc80"

WRONG_EVENTS: dict[str, Callable[[], StoredEvent]] = {
    name: lambda changes=changes: StoredEvent(  # type: ignore[misc] # (mypy cannot type defaults of lambdas)
        **{"originator_id": uuid4(), "originator_version": 1, "topic": "topic", "state": b"state", **changes}
    )
    for name, changes in {
        "state str": {"state": "state"},
        "state None": {"state": None},
        "state int": {"state": 5},
        "state list": {"state": [1, 2]},
        "topic None": {"topic": None},
        "topic bytes": {"topic": b"topic"},
        "topic int": {"topic": 5},
        "topic with NUL": {"topic": NUL},
        "topic with lone surrogate": {"topic": SURROGATE},
        "version str": {"originator_version": "1"},
        "version None": {"originator_version": None},
        "version float": {"originator_version": 1.5},
        "version of 65 bits": {"originator_version": 2**63},
        "version below 64 bits": {"originator_version": -(2**63) - 1},
        "huge version": {"originator_version": 10**30},
        "id str": {"originator_id": "3f0e7c2e-0a8f-4d6c-9d4d-3f4a6a1f7c11"},
        "id None": {"originator_id": None},
        "id int": {"originator_id": 5},
        "id bytes": {"originator_id": b"0123456789abcdef"},
    }.items()
}
WRONG_TEXT_IDS: dict[str, Any] = {
    "id None": None,
    "id int": 5,
    "id bytes": b"id",
    "id with NUL": NUL,
    "id with lone surrogate": SURROGATE,
}
WRONG_TRACKING: dict[str, Tracking] = {
    "name None": Tracking(None, 1),  # type: ignore[arg-type]
    "name int": Tracking(5, 1),  # type: ignore[arg-type]
    "name bytes": Tracking(b"name", 1),  # type: ignore[arg-type]
    "name with NUL": Tracking(NUL, 1),
    "name with lone surrogate": Tracking(SURROGATE, 1),
    "id None": Tracking("upstream", None),  # type: ignore[arg-type]
    "id str": Tracking("upstream", "1"),  # type: ignore[arg-type]
    "id float": Tracking("upstream", 1.5),  # type: ignore[arg-type]
    "id of 65 bits": Tracking("upstream", 2**63),
}


@pytest.fixture
def recorder(url: str, place: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A process recorder with one connection, so that leftovers affect the next call."""
    with Applications(url, pool_size=1, max_overflow=0) as applications:
        yield applications.recorder("Shop", None if url.startswith("sqlite") else place)


# One recorder gets all of them in turn, so each also shows that the one before left nothing.


def assert_stays_usable(recorder: SQLAlchemyProcessRecorder, expected: list[str], what: str) -> None:
    """Expect exactly these records, and that another event with tracking can be recorded, which is added to them."""
    assert topics(recorder) == expected, what
    position = recorder.max_tracking_id("upstream") or 0
    assert position == expected.count("next"), what
    recorder.insert_events(stored_events(topic="next"), tracking=Tracking("upstream", position + 1))
    expected.append("next")


@contextmanager
def around(recorder: SQLAlchemyProcessRecorder, way: str, expected: list[str]) -> Iterator[None]:
    """Open a transaction with a recorded event, if the way requires it."""
    if way != "in a transaction":
        yield
        return
    with recorder.transaction():
        recorder.insert_events(stored_events(topic="beside"))
        yield
    expected.append("beside")


@pytest.mark.parametrize("way", ["alone", "last of a batch", "with tracking", "in a transaction"])
def test_event_of_a_wrong_type_is_a_data_error_and_nothing_is_written(
    recorder: SQLAlchemyProcessRecorder, way: str
) -> None:
    expected: list[str] = []
    for name, wrong_event in WRONG_EVENTS.items():
        events = [*stored_events(0 if way == "alone" else 2, topic="batch"), wrong_event()]
        tracking: Any = {"tracking": Tracking("upstream", 10**6)} if way == "with tracking" else {}
        with around(recorder, way, expected), pytest.raises(DataError, match=r"stored event|originator_id"):
            recorder.insert_events(events, **tracking)
        assert_stays_usable(recorder, expected, name)


def test_snapshot_of_a_wrong_type_is_a_data_error_and_nothing_is_written(url: str, place: str) -> None:
    with Applications(url) as applications:
        factory = applications.factory("Shop", None if url.startswith("sqlite") else place)
        snapshots = factory.aggregate_recorder("snapshots")
        for name, wrong_event in WRONG_EVENTS.items():
            (good,) = stored_events()
            with pytest.raises(DataError):
                snapshots.insert_events([good, wrong_event()])
            assert snapshots.select_events(good.originator_id) == [], name
            snapshots.insert_events([good])
            assert snapshots.select_events(good.originator_id) == [good], name


def test_text_id_of_a_wrong_type_is_a_data_error_and_nothing_is_written(url: str, place: str) -> None:
    variables = {"SQLALCHEMY_URL": url, "ORIGINATOR_ID_TYPE": "text", "SQLALCHEMY_POOL_SIZE": "1"}
    if not url.startswith("sqlite"):
        variables["SQLALCHEMY_SCHEMA"] = place
    factory = SQLAlchemyFactory(Environment("Shop", variables))
    recorder = factory.process_recorder()
    assert isinstance(recorder, SQLAlchemyProcessRecorder)
    expected: list[str] = []
    for name, wrong_id in WRONG_TEXT_IDS.items():
        with pytest.raises(DataError, match="originator_id"):
            recorder.insert_events([*stored_events(2), StoredEvent(wrong_id, 1, "topic", b"")])
        with pytest.raises(DataError, match="originator_id"):
            recorder.select_events(wrong_id)
        assert_stays_usable(recorder, expected, name)
    # A UUID is accepted as text.
    originator_id = uuid4()
    recorder.insert_events([StoredEvent(originator_id, 1, "uuid", b"")])
    assert [event.topic for event in recorder.select_events(str(originator_id))] == ["uuid"]
    factory.close()


@pytest.mark.parametrize("way", ["alone", "with events", "in a transaction"])
def test_tracking_of_a_wrong_type_is_a_data_error_and_nothing_is_written(
    recorder: SQLAlchemyProcessRecorder, way: str
) -> None:
    expected: list[str] = []
    for name, tracking in WRONG_TRACKING.items():
        insert: Any = recorder.insert_tracking if way == "alone" else partial(recorder.insert_events, stored_events(2))
        with around(recorder, way, expected), pytest.raises(DataError, match=r"application_name|notification_id"):
            insert(tracking=tracking)
        assert_stays_usable(recorder, expected, name)


HUGE = 2**70
READS: dict[str, Callable[[SQLAlchemyProcessRecorder], object]] = {
    "id str": lambda r: r.select_events("3f0e7c2e-0a8f-4d6c-9d4d-3f4a6a1f7c11"),
    "id None": lambda r: r.select_events(None),  # type: ignore[arg-type]
    "gt str": lambda r: r.select_events(uuid4(), gt="x"),  # type: ignore[arg-type]
    "gt huge": lambda r: r.select_events(uuid4(), gt=HUGE),
    "lte huge": lambda r: r.select_events(uuid4(), lte=HUGE),
    "limit str": lambda r: r.select_events(uuid4(), limit="x"),  # type: ignore[arg-type]
    "limit negative": lambda r: r.select_events(uuid4(), limit=-1),
    "start str": lambda r: r.select_notifications("x", 10),  # type: ignore[arg-type]
    "start huge": lambda r: r.select_notifications(HUGE, 10),
    "stop huge": lambda r: r.select_notifications(1, 10, HUGE),
    "limit huge": lambda r: r.select_notifications(1, HUGE),
    "topic NUL": lambda r: r.select_notifications(1, 10, topics=[NUL]),
    "topic surrogate": lambda r: r.select_notifications(1, 10, topics=[SURROGATE]),
    "topic None": lambda r: r.select_notifications(1, 10, topics=[None]),  # type: ignore[list-item]
    "topic object": lambda r: r.select_notifications(1, 10, topics=[object()]),  # type: ignore[list-item]
    "tracking NUL": lambda r: r.max_tracking_id(NUL),
    "tracking surrogate": lambda r: r.max_tracking_id(SURROGATE),
    "tracking object": lambda r: r.max_tracking_id(object()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("in_transaction", [False, True])
def test_read_with_a_wrong_argument_raises_library_errors_only(
    recorder: SQLAlchemyProcessRecorder, in_transaction: bool
) -> None:
    expected: list[str] = []
    for name, read in READS.items():
        with suppress(PersistenceError), recorder.transaction() if in_transaction else nullcontext():
            read(recorder)
        assert_stays_usable(recorder, expected, name)


@pytest.mark.parametrize("state", [bytearray(b"state"), memoryview(b"state"), b""])
@pytest.mark.parametrize("count", [1, 3])
def test_other_bytes_like_objects_are_accepted(recorder: SQLAlchemyProcessRecorder, state: Any, count: int) -> None:
    events = stored_events(count, state=state)
    recorder.insert_events(events)
    assert [event.state for event in recorder.select_events(events[0].originator_id)] == [bytes(state)] * count

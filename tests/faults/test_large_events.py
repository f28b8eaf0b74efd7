"""Events and batches of hundreds of megabytes work, or are refused before anything is sent.

They run one at a time, even across processes of pytest-xdist, because each needs some gigabytes.
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from eventsourcing.persistence import DataError, StoredEvent, Tracking

from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder
from tests.faults.conftest import DRIVERS
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics

MEGABYTE = 10**6
LARGE = 300 * MEGABYTE

# Drivers whose large batches are tested only without a time limit.
SELDOM = ("psycopg", "pg8000")
# With a time limit, drivers that send parameters separately use a smaller event, because the server's parser does not
# limit them.
SMALLER = {"psycopg": LARGE // 4, "pg8000": LARGE // 4}


# Skipped when continuous integration runs the tests again on another server.
once = pytest.mark.skipif(
    os.environ.get("CI") == "true" and "TEST_POSTGRES_URL" in os.environ, reason="has run on the embedded server"
)


@pytest.fixture
def alone() -> Iterator[None]:
    """Block the other tests of this module, in all processes."""
    with Path(tempfile.gettempdir(), "eventsourcing_sqlalchemy_large_events.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        gc.collect()


@pytest.fixture(params=[*DRIVERS, "sqlite"])
def recorder(request: pytest.FixtureRequest, place: str) -> Iterator[SQLAlchemyProcessRecorder]:
    """A recorder on each database."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        database: Database = request.getfixturevalue("database")
        url = database.url(request.param)
    with Applications(url) as applications:
        yield applications.recorder("Shop", place)


def state(number: int, size: int) -> bytes:
    """Return bytes whose megabytes all differ; the rest is zero, which compresses quickly."""
    content = bytearray(size)
    for start in range(0, size - 16, MEGABYTE):
        content[start : start + 16] = b"%08d%08d" % (number, start // MEGABYTE)
    return bytes(content)


def digest(state: bytes) -> str:
    return hashlib.blake2b(state).hexdigest()


@once
@pytest.mark.usefixtures("alone")
def test_large_event_is_written_and_read(
    recorder: SQLAlchemyProcessRecorder, request: pytest.FixtureRequest, repeat: Callable[[int], range]
) -> None:
    size = LARGE if len(repeat(1)) > 1 else SMALLER.get(request.node.callspec.params["recorder"], LARGE)
    event = StoredEvent(uuid4(), 1, "large", state(1, size))
    expected = digest(event.state)
    assert recorder.insert_events([event], tracking=Tracking("upstream", 1)) == [1]
    originator_id = event.originator_id
    del event
    gc.collect()
    (stored,) = recorder.select_events(originator_id)
    assert (len(stored.state), digest(stored.state)) == (size, expected)
    assert recorder.max_tracking_id("upstream") == 1


@once
@pytest.mark.usefixtures("alone")
def test_large_batch_is_written_and_read(
    recorder: SQLAlchemyProcessRecorder, request: pytest.FixtureRequest, repeat: Callable[[int], range]
) -> None:
    if request.node.callspec.params["recorder"] in SELDOM and len(repeat(1)) == 1:
        pytest.skip("with TEST_REPEAT above 1: a batch is sent in pieces, of which each is like a small one")
    # Small and large ones, so that they are sent in all kinds of pieces.
    sizes = [50 * MEGABYTE, 10, *[2 * MEGABYTE] * 10, 0, *[20 * MEGABYTE] * 2]
    assert sum(sizes) > 100 * MEGABYTE
    originator_id = uuid4()
    events = [StoredEvent(originator_id, n, "large", state(n, size)) for n, size in enumerate(sizes, start=1)]
    expected = [digest(event.state) for event in events]
    assert recorder.insert_events(events, tracking=Tracking("upstream", 1)) == list(range(1, len(sizes) + 1))
    del events
    gc.collect()
    found = []
    for start in range(1, len(sizes) + 1, 10):
        found += [digest(notification.state) for notification in recorder.select_notifications(start, 10)]
    assert found == expected


class TooLarge(bytes):
    """Claims to be larger than any database accepts."""

    def __len__(self) -> int:
        return 2**30


@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("in_transaction", [False, True])
def test_too_large_event_is_refused_before_anything_is_sent(
    recorder: SQLAlchemyProcessRecorder, others: int, in_transaction: bool
) -> None:
    event = StoredEvent(uuid4(), 1, "too large", TooLarge(b"small"))
    with ExitStack() as stack:
        if in_transaction:
            stack.enter_context(recorder.transaction())
            recorder.insert_events(stored_events(topic="beside"))
        # The transaction stays usable.
        with pytest.raises(DataError, match=r"1073741824 bytes; the limit is \d+"):
            recorder.insert_events([*stored_events(others), event], tracking=Tracking("upstream", 1))
    assert topics(recorder) == (["beside"] if in_transaction else [])
    assert recorder.max_tracking_id("upstream") is None
    assert recorder.insert_events(stored_events()) is not None

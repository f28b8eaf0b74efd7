"""Hundreds of applications on one engine, with short-lived threads: few connections, and none left behind."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import InterfaceError, Tracking

from eventsourcing_sqlalchemy.engines.engine import EngineSource
from tests.support.activity import Activity
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import run_together, wait_until
from tests.support.engine_count import engines_in_use
from tests.support.followers import Follower

POOL_SIZE, MAX_OVERFLOW = 2, 1


# -- many applications --


def check_many_applications(url: str, activity: Activity, places: list[str]) -> None:
    with Applications(url, pool_size=POOL_SIZE, max_overflow=MAX_OVERFLOW) as apps, activity.watch() as counts:
        recorders = [apps.recorder(place=place) for place in places]

        def write_to_some(first: int) -> None:
            for recorder in recorders[first::8]:
                recorder.insert_events(stored_events(2), tracking=Tracking("upstream", 1))
                with recorder.transaction():
                    recorder.insert_events(stored_events())
                assert len(topics(recorder)) == 3

        run_together([partial(write_to_some, first) for first in range(8)], 60)
        assert 0 < max(counts) <= POOL_SIZE + MAX_OVERFLOW
        assert len(engines_in_use()) == 1
        pool: Any = recorders[0].datastore.engine.pool
        # The notification of the last write may still be running.
        wait_until(lambda: pool.checkedout() == 0, "nothing is checked out at rest")
        wait_until(lambda: activity.connections() <= POOL_SIZE, "overflow connections are closed")
    activity.wait_until_none()
    assert engines_in_use() == []


def test_two_hundred_applications_share_one_engine(
    postgres_url: str, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong variant, with fewer applications: an engine for each."""
    check_many_applications(postgres_url, activity, [f"place {number}" for number in range(200)])
    # The engine is usable again.
    with Applications(postgres_url) as apps:
        assert len(topics(apps.recorder(place="place 7"))) == 3
        assert activity.connections() >= 1
    activity.wait_until_none()
    monkeypatch.setattr(EngineSource, "key", lambda _: object())
    with pytest.raises(AssertionError):
        check_many_applications(postgres_url, activity, [f"wrong {number}" for number in range(12)])


def test_followers_of_many_applications_cost_one_connection(postgres_url: str, activity: Activity) -> None:
    with Applications(postgres_url, pool_size=1, max_overflow=0) as apps:
        recorders = [apps.recorder(place=f"place {number}") for number in range(10)]
        followers = [Follower(recorder) for recorder in recorders]
        threads = threading.active_count()
        for follower in followers:
            follower.__enter__()
        assert threading.active_count() - threads == len(followers) + 1
        for recorder in recorders:
            recorder.insert_events(stored_events(topic="new"))
        for follower in followers:
            follower.wait_for("new")
        assert activity.connections() <= 2
        for follower in followers:
            follower.__exit__()
        wait_until(lambda: activity.connections() <= 1, "the listening connection is closed")
    activity.wait_until_none()


def test_engine_of_abandoned_applications_is_released_with_them(postgres_url: str, activity: Activity) -> None:
    with Applications(postgres_url) as apps:
        closed = apps.recorder()
        forgotten = Applications(postgres_url).recorder(place="other")
        forgotten.insert_events(stored_events())
        del forgotten
        gc.collect()
        closed.insert_events(stored_events())
    gc.collect()
    assert engines_in_use() == []
    activity.wait_until_none()


# -- closing --


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_closed_application_does_not_affect_the_others(database: str, request: pytest.FixtureRequest) -> None:
    with Applications(request.getfixturevalue(database)) as apps:
        mine, other = apps.recorder("Mine"), apps.recorder("Other")
        mine.datastore.close()
        mine.datastore.close()
        calls: list[Callable[[], object]] = [
            lambda: mine.insert_events(stored_events()),
            lambda: topics(mine),
            lambda: mine.insert_tracking(Tracking("upstream", 1)),
            lambda: mine.transaction().__enter__(),
            lambda: next(mine.subscribe()),
        ]
        for call in calls:
            with pytest.raises(InterfaceError, match="'Mine' is closed"):
                call()
        other.insert_events(stored_events())
        again = apps.recorder("Mine")
        again.insert_events(stored_events())
        assert len(topics(again)) == 1


def test_open_transaction_of_a_closing_application_ends_properly(postgres_url: str, activity: Activity) -> None:
    with Applications(postgres_url) as apps:
        recorder = apps.recorder()
        with recorder.transaction() as session:
            recorder.insert_events(stored_events())
            recorder.datastore.close()
            session.execute(sa.text("SELECT 1"))
    activity.wait_until_none()
    with Applications(postgres_url) as apps:
        assert len(topics(apps.recorder())) == 1


@pytest.mark.parametrize("database", ["postgres_url", "sqlite_url"])
def test_threads_use_applications_while_others_close_theirs(
    database: str, request: pytest.FixtureRequest, repeat: Callable[[int], range]
) -> None:
    """Some close the engine's last application while another thread acquires it."""
    url = request.getfixturevalue(database)
    numbers = count()
    written = []

    def come_and_go() -> None:
        for _ in repeat(8):
            with Applications(url, lock_timeout=20) as apps:
                recorder = apps.recorder()
                recorder.insert_events(stored_events(topic=str(next(numbers))))
                written.append(len(topics(recorder)))

    with Applications(url, lock_timeout=20) as apps:
        apps.recorder()
    run_together([come_and_go] * 6, 60)
    assert engines_in_use() == []
    with Applications(url) as apps:
        assert sorted(map(int, topics(apps.recorder()))) == list(range(len(written)))


def test_application_closed_under_a_thread_fails_with_an_error_of_the_library(
    postgres_url: str, activity: Activity
) -> None:
    with Applications(postgres_url) as apps:
        recorder = apps.recorder()
        acknowledged = [0]
        outcomes: list[Exception] = []

        def write_until_closed() -> None:
            try:
                while True:
                    recorder.insert_events(stored_events())
                    acknowledged[0] += 1
            except Exception as error:  # noqa: BLE001 (checked below)
                outcomes.append(error)

        thread = threading.Thread(target=write_until_closed)
        thread.start()
        wait_until(lambda: acknowledged[0] > 5, "the thread writes")
        recorder.datastore.close()
        thread.join()
        assert [type(error) for error in outcomes] == [InterfaceError]
    activity.wait_until_none()
    with Applications(postgres_url) as apps:
        assert len(topics(apps.recorder())) >= acknowledged[0]

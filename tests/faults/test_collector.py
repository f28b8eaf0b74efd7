"""Applications that the garbage collector closes at any point, even inside one of our locks, cause no harm.

The tests close them from a hook at such a point, because the collector's own timing is not predictable.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy import SQLAlchemyFactory
from eventsourcing_sqlalchemy.engines import references
from eventsourcing_sqlalchemy.engines.engine import SharedEngine
from tenancy.registry.cache import acquire_registry_cache, registry_caches
from tenancy.settings import TenancySettings
from tests.support.administrator import Database
from tests.support.applications import Applications, stored_events, topics
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.engine_count import engines_in_use, forget_abandoned


def in_time(call: Callable[[], object], what: str) -> None:
    """Call a function in a thread, which may hang."""
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(call()), daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS / 2)
    assert outcome, f"hangs or fails: {what}"


def test_engine_that_is_being_acquired_is_not_disposed_of(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Applications(sqlite_url) as apps:
        forgotten = apps.factory("Forgotten")
        check = references._check_settings  # noqa: SLF001

        def check_and_collect(*args: Any) -> None:
            check(*args)
            forgotten.close()

        with monkeypatch.context() as patch:
            patch.setattr(references, "_check_settings", check_and_collect)
            one = apps.recorder("One")
        two = apps.recorder("Two")
        assert one.datastore.shared is two.datastore.shared
        assert engines_in_use() == [two.datastore.shared]
        one.insert_events(stored_events(topic="one"))
        one.datastore.close()
        assert engines_in_use() == [two.datastore.shared]
        two.insert_events(stored_events(topic="two"))
        assert topics(two) == ["two"]
        shared = two.datastore.shared
    assert engines_in_use() == []
    assert shared.pool._is_disposed  # noqa: SLF001


def test_engine_is_disposed_of_outside_of_the_lock_of_all_engines(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing connections can take long; other applications must not wait for it."""
    with Applications(sqlite_url) as apps, Applications("sqlite://") as others:
        forgotten = apps.factory("Forgotten")
        init, dispose = SharedEngine.__init__, SharedEngine.dispose
        could_acquire: list[bool] = []

        def init_and_collect(self: SharedEngine, *args: Any) -> None:
            init(self, *args)
            forgotten.close()

        def acquire_and_dispose(self: SharedEngine) -> None:
            if not could_acquire:
                could_acquire.append(False)
                thread = threading.Thread(target=lambda: Applications(sqlite_url).factory("Meanwhile").close())
                thread.start()
                thread.join(DEADLINE_SECONDS / 2)
                could_acquire[0] = not thread.is_alive()
            dispose(self)

        with monkeypatch.context() as patch:
            patch.setattr(SharedEngine, "__init__", init_and_collect)
            patch.setattr(SharedEngine, "dispose", acquire_and_dispose)
            others.recorder("Other").insert_events(stored_events())
        assert could_acquire == [True]


def test_interrupted_disposal_of_another_engine_loses_no_reference(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while an application is constructed, which closes the connections of a collected one first."""
    before = engines_in_use()
    with Applications(sqlite_url) as apps, Applications("sqlite://") as others:
        forgotten = apps.factory("Forgotten")
        init, dispose = SharedEngine.__init__, SharedEngine.dispose

        def init_and_collect(self: SharedEngine, *args: Any) -> None:
            init(self, *args)
            forgotten.close()

        def dispose_and_interrupt(self: SharedEngine) -> None:
            dispose(self)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(SharedEngine, "__init__", init_and_collect)
            patch.setattr(SharedEngine, "dispose", dispose_and_interrupt)
            with pytest.raises(KeyboardInterrupt):
                others.factory("Other")
    forget_abandoned()
    assert engines_in_use() == before


def test_application_collected_inside_the_lock_of_the_wakeups_does_not_hang(
    database: Database, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Applications(database.url()) as apps:
        factory = apps.factory(place=place)
        recorder = factory.process_recorder()
        start = threading.Thread.start
        closed: list[bool] = []

        def collect_and_start(self: threading.Thread) -> None:
            if self.name == "eventsourcing-notifier":
                factory.close()
                closed.append(True)
            start(self)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", collect_and_start)
            in_time(lambda: recorder.insert_events(stored_events(topic="recorded")), "the append")
        assert closed == [True]
        forget_abandoned()
        assert engines_in_use() == []
        again = apps.recorder("Again", place=place)
        assert again.datastore.shared is not None


def test_any_number_of_factories_may_be_collected_at_once(sqlite_url: str) -> None:
    """Each leaves a note for the next call that acquires one: more notes than calls can be nested."""
    forget_abandoned()
    before = engines_in_use()
    environment = Environment("Shop", {"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": sqlite_url})
    factories = [SQLAlchemyFactory(environment) for _ in range(sys.getrecursionlimit())]
    del factories
    gc.collect()
    factory = SQLAlchemyFactory(environment)
    factory.process_recorder().insert_events(stored_events())
    factory.close()
    assert engines_in_use() == before


def test_any_number_of_registry_references_may_be_collected_at_once(sqlite_url: str) -> None:
    settings = TenancySettings.read({"SQLALCHEMY_URL": sqlite_url})
    reference = acquire_registry_cache(settings)
    for _ in range(sys.getrecursionlimit()):
        registry_caches.abandon(acquire_registry_cache(settings))
    registry_caches.drain()
    assert list(registry_caches) == [reference.resource]
    reference.release()
    assert list(registry_caches) == []

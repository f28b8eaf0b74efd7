"""The conftest's check that every test releases its engines."""

from __future__ import annotations

import gc

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.engine_settings import EngineSettings
from eventsourcing_sqlalchemy.engines.engine import EngineSource
from eventsourcing_sqlalchemy.engines.references import acquire_engine
from eventsourcing_sqlalchemy.settings import parse_url
from tenancy.registry.cache import acquire_registry_cache, registry_caches
from tenancy.settings import TenancySettings
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.engine_count import count_references, describe_references, release_all, wait_for_references

URL = "sqlite:///never-created.db"


def test_unclosed_datastore_is_named_with_its_holder_and_released() -> None:
    before = count_references()
    held = [SQLAlchemyDatastore(url=URL, application="Forgotten") for _ in range(2)]
    left = wait_for_references(before, 0)
    assert list(left.values()) == [2]
    described = describe_references(left)
    assert "2 left of 2 references, with 2 reference objects" in described
    assert described.count("application 'Forgotten', referred to by:") == 2
    assert "builtins.list" in described
    release_all(left)
    assert count_references() == before
    assert all(datastore._is_closed for datastore in held)  # noqa: SLF001


def test_lost_reference_is_found_and_its_engine_disposed_of() -> None:
    before = count_references()
    acquire_engine(EngineSource(url=parse_url(URL)), EngineSettings(), "Forgotten")
    left = wait_for_references(before, 0)
    assert "1 left of 1 references, with 0 reference objects" in describe_references(left)
    release_all(left)
    assert count_references() == before


def test_earlier_references_are_not_counted() -> None:
    wider = SQLAlchemyDatastore(url=URL)
    before = count_references()
    assert wait_for_references(before, 0) == {}
    another = SQLAlchemyDatastore(url=URL)
    assert list(wait_for_references(before, 0).values()) == [1]
    another.close()
    wider.close()
    assert wait_for_references(before, 0) == {}


def test_collected_applications_are_waited_for_and_released() -> None:
    before = count_references()
    lost = SQLAlchemyDatastore(url=URL)
    lost.itself = lost  # type: ignore[attr-defined]  # so that only the collector finds it
    registry_caches.abandon(acquire_registry_cache(TenancySettings.read({"SQLALCHEMY_URL": URL})))
    gc.disable()
    try:
        del lost
        assert wait_for_references(before, DEADLINE_SECONDS) == {}
    finally:
        gc.enable()

"""Every recorder keeps its tables in the place that the settings name, and only there."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from tests.support.places import PLACES, PREFIX, SCHEMA, Place

Tables = dict[str | None, list[str]]


def expected_tables(place: Place, variables: dict[str, str]) -> Tables:
    prefix = PREFIX if place.prefix else ""
    tables = sorted(prefix + name for name in ("kiosk_events", "kiosk_snapshots", "kiosk_tracking"))
    if not place.is_server:
        return {"main": tables}
    return {"public": tables} if not place.schema else {"public": [], variables["SQLALCHEMY_SCHEMA"]: tables}


def tables_of(engine: sa.Engine) -> Tables:
    inspector = sa.inspect(engine)
    schemas = [name for name in inspector.get_schema_names() if name != "information_schema"]
    return {schema: sorted(inspector.get_table_names(schema=schema)) for schema in schemas}


def record(factory: SQLAlchemyFactory) -> None:
    """Write with every recorder of an application."""
    ids = [
        f"{number}-é" if factory.settings.originator_id_type == "text" else sa.Uuid().python_type(int=number)
        for number in range(3)
    ]
    events = [StoredEvent(originator_id, 1, "topic", b"state") for originator_id in ids]
    factory.aggregate_recorder().insert_events(events[:1])
    factory.aggregate_recorder("snapshots").insert_events(events)
    factory.application_recorder().insert_events(events[1:2])
    factory.tracking_recorder().insert_tracking(Tracking("upstream", 1))
    process_recorder = factory.process_recorder()
    process_recorder.insert_events(events[2:], tracking=Tracking("upstream", 2))
    notifications = process_recorder.select_notifications(start=None, limit=9)
    assert [notification.originator_id for notification in notifications] == ids
    assert process_recorder.max_tracking_id("upstream") == 2


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_tables_are_in_the_configured_place(place: Place, place_variables: Callable[[Place], dict[str, str]]) -> None:
    variables = place_variables(place)
    factory = SQLAlchemyFactory(Environment("Kiosk", variables))
    try:
        record(factory)
        assert tables_of(factory.datastore.engine) == expected_tables(place, variables)
    finally:
        factory.close()


def test_places_cover_every_pair() -> None:
    assert {(place.database, place.prefix) for place in PLACES} == {
        (database, prefix)
        for database in ("memory", "file", "psycopg2", "psycopg", "pg8000")
        for prefix in (False, True)
    }
    for driver in ("psycopg2", "psycopg", "pg8000"):
        mine = [place for place in PLACES if place.database == driver]
        assert {(place.schema, place.prefix) for place in mine} == {
            (s, p) for s in (False, True) for p in (False, True)
        }
        assert {(place.schema, place.text_ids) for place in mine} == {
            (s, t) for s in (False, True) for t in (False, True)
        }
    assert "%" in SCHEMA
    assert '"' in SCHEMA

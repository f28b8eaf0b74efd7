"""Applications constructed from settings, their recorders, and events to record."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Self
from uuid import UUID, uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.utils import Environment

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from eventsourcing_sqlalchemy.recorders import SQLAlchemyProcessRecorder

OTHER_VARIABLES = ("CREATE_TABLE", "ORIGINATOR_ID_TYPE")


class Applications:
    """Applications on one database, each with its own schema or prefix. Closed with the block.

    `settings` apply to all of them: `pool_size=1` sets SQLALCHEMY_POOL_SIZE.
    """

    def __init__(self, url: str, **settings: object) -> None:
        self.url = url
        self._settings = settings
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()

    def factory(
        self,
        name: str = "App",
        place: str | None = None,
        *,
        factory_class: type[SQLAlchemyFactory] = SQLAlchemyFactory,
        **settings: object,
    ) -> SQLAlchemyFactory:
        """Return an application's factory; `place` is the schema of its tables, or their prefix on SQLite."""
        env = {_variable(key): str(value) for key, value in {**self._settings, **settings}.items()}
        env.setdefault("SQLALCHEMY_URL", self.url)
        if place is not None:
            env["SQLALCHEMY_TABLE_PREFIX" if self.url.startswith("sqlite") else "SQLALCHEMY_SCHEMA"] = place
        factory = factory_class(Environment(name, env))
        self._resources.callback(factory.close)
        return factory

    def recorder(self, name: str = "App", place: str | None = None, **options: Any) -> SQLAlchemyProcessRecorder:
        """Return an application's process recorder; `options` are those of `factory`."""
        recorder = self.factory(name, place, **options).process_recorder()
        assert isinstance(recorder, SQLAlchemyProcessRecorder)
        return recorder

    def elsewhere(self, recorder: SQLAlchemyProcessRecorder, **engine_options: Any) -> SQLAlchemyProcessRecorder:
        """Return a recorder of the same tables on a separate engine, as in another process."""
        # An engine with its own options is not shared.
        datastore = SQLAlchemyDatastore(url=self.url, **(engine_options or {"echo": False}))
        self._resources.callback(datastore.close)
        return twin(recorder, datastore)


def _variable(key: str) -> str:
    name = key.upper()
    return name if name in OTHER_VARIABLES else f"SQLALCHEMY_{name}"


def twin(
    recorder: SQLAlchemyProcessRecorder,
    datastore: SQLAlchemyDatastore | None = None,
    recorder_class: type[SQLAlchemyProcessRecorder] = SQLAlchemyProcessRecorder,
) -> SQLAlchemyProcessRecorder:
    """Return another recorder of the same tables, with another datastore or class."""
    return recorder_class(
        datastore or recorder.datastore,
        events_table_name=recorder.events_table_name,
        tracking_table_name=recorder.tracking_table_name,
        schema_name=recorder.schema_name,
    )


def stored_events(
    count: int = 1,
    originator_id: UUID | None = None,
    *,
    first_version: int = 1,
    state: bytes = b"{}",
    topic: str = "module:Class",
) -> list[StoredEvent]:
    """Return events of one aggregate, by default of a new one."""
    originator_id = originator_id or uuid4()
    return [StoredEvent(originator_id, first_version + number, topic, state) for number in range(count)]


def topics(recorder: SQLAlchemyProcessRecorder) -> list[str]:
    """Return the topics of all notifications in id order. Tests mark events by topic."""
    return [notification.topic for notification in recorder.select_notifications(start=None, limit=1_000_000)]

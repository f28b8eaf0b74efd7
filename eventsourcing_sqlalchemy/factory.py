"""Construct an application's recorders from its environment."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar, cast

from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, InfrastructureFactory, ProcessRecorder
from eventsourcing.utils import Environment, EnvType, TopicError, resolve_topic
from sqlalchemy.engine import Engine

from eventsourcing_sqlalchemy import library_hooks
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects import url_of
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.locks import Lock
from eventsourcing_sqlalchemy.naming import environment_name
from eventsourcing_sqlalchemy.recorders import (
    SQLAlchemyAggregateRecorder,
    SQLAlchemyApplicationRecorder,
    SQLAlchemyProcessRecorder,
    SQLAlchemyRecorder,
    SQLAlchemyTrackingRecorder,
)
from eventsourcing_sqlalchemy.settings import Location, Settings

__all__ = ["Factory", "SQLAlchemyFactory"]

_TRecorder = TypeVar("_TRecorder", bound=SQLAlchemyRecorder)
_TTracking = TypeVar("_TTracking", bound=SQLAlchemyTrackingRecorder)


class SQLAlchemyFactory(InfrastructureFactory[SQLAlchemyTrackingRecorder]):
    """Constructs the recorders of one application on an engine that all applications of the process share.

    Reads the environment once, in the constructor, and raises SettingsError for what is missing or malformed. Every
    setting is described in the README.
    """

    SQLALCHEMY_URL = "SQLALCHEMY_URL"
    SQLALCHEMY_SCHEMA = "SQLALCHEMY_SCHEMA"
    SQLALCHEMY_TABLE_PREFIX = "SQLALCHEMY_TABLE_PREFIX"
    SQLALCHEMY_AUTOFLUSH = "SQLALCHEMY_AUTOFLUSH"
    SQLALCHEMY_SCOPED_SESSION_TOPIC = "SQLALCHEMY_SCOPED_SESSION_TOPIC"
    SQLALCHEMY_CONNECTION_CREATOR_TOPIC = "SQLALCHEMY_CONNECTION_CREATOR_TOPIC"
    SQLALCHEMY_ENGINE_TOPIC = "SQLALCHEMY_ENGINE_TOPIC"
    ORIGINATOR_ID_TYPE = "ORIGINATOR_ID_TYPE"
    CREATE_TABLE = "CREATE_TABLE"
    AGGREGATE_RECORDER_TOPIC = "AGGREGATE_RECORDER_TOPIC"

    datastore_class = SQLAlchemyDatastore
    aggregate_recorder_class = SQLAlchemyAggregateRecorder
    application_recorder_class = SQLAlchemyApplicationRecorder
    tracking_recorder_class = SQLAlchemyTrackingRecorder
    process_recorder_class = SQLAlchemyProcessRecorder

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self.settings = Settings.read(self.env, self._location())
        self._claim: _Claim | None = _claim_name(self.env.name) if self.env.name else None
        self.datastore = self._construct_datastore()

    def _location(self) -> Location | None:
        """Return where the tables are; None to read it from the environment. Overridden in subclasses."""
        return None

    def _construct_datastore(self) -> SQLAlchemyDatastore:
        settings = self.settings
        options: dict[str, Any] = {
            "autoflush": settings.autoflush,
            "application": settings.application,
            "settings": settings.engine,
            "originator_id_type": settings.originator_id_type,
        }
        if settings.scoped_session_topic is not None:
            return self.datastore_class(
                session=self._resolve(self.SQLALCHEMY_SCOPED_SESSION_TOPIC, settings.scoped_session_topic)(), **options
            )
        if settings.engine_topic is not None:
            engine = self._resolve(self.SQLALCHEMY_ENGINE_TOPIC, settings.engine_topic)()
            if not isinstance(engine, Engine):
                msg = (
                    f"{self.SQLALCHEMY_ENGINE_TOPIC}={settings.engine_topic!r} must return an SQLAlchemy Engine, "
                    f"not {type(engine).__name__}."
                )
                raise SettingsError(msg, variable=self.SQLALCHEMY_ENGINE_TOPIC)
            return self.datastore_class(engine=engine, **options)
        url = settings.url
        if settings.connection_creator_topic is not None:
            creator = options["creator"] = self._resolve(
                self.SQLALCHEMY_CONNECTION_CREATOR_TOPIC, settings.connection_creator_topic
            )
            if url is None:
                with closing(creator()) as connection:
                    url = url_of(connection)
        if url is None:
            msg = (
                f"{self.SQLALCHEMY_URL} is not set (application {self.env.name!r}). "
                "Set it, e.g. SQLALCHEMY_URL=sqlite:///school.db or postgresql://user@host/db"
            )
            raise SettingsError(msg, variable=self.SQLALCHEMY_URL)
        return self.datastore_class(url=url, **options)

    def _resolve(self, variable: str, topic: str) -> Callable[..., Any]:
        try:
            resolved = resolve_topic(topic)
        except TopicError as error:
            msg = f"{variable}={topic!r} (application {self.env.name!r}) cannot be resolved. The form is 'module:name'."
            raise SettingsError(msg, variable=variable) from error
        if not callable(resolved):
            msg = (
                f"{variable}={topic!r} (application {self.env.name!r}) names a {type(resolved).__name__}, not a "
                "callable."
            )
            raise SettingsError(msg, variable=variable)
        return cast("Callable[..., Any]", resolved)

    # -- recorders --

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return a recorder of aggregate events, or with the purpose ``snapshots`` of snapshots."""
        cls = self._recorder_class(self.AGGREGATE_RECORDER_TOPIC, self.aggregate_recorder_class)
        return self._construct(
            cls, events_table_name=self._table_name(purpose, f"stored_{purpose}"), for_snapshots=purpose == "snapshots"
        )

    def application_recorder(self) -> ApplicationRecorder:
        """Return a recorder of the application's events."""
        cls = self._recorder_class(self.APPLICATION_RECORDER_TOPIC, self.application_recorder_class)
        return self._construct(cls, events_table_name=self._table_name("events", "stored_events"))

    def tracking_recorder(self, tracking_recorder_class: type[_TTracking] | None = None) -> _TTracking:
        """Return a recorder of tracking positions, of the given class or the one that TRACKING_RECORDER_TOPIC names."""
        cls = tracking_recorder_class or cast(
            "type[_TTracking]", self._recorder_class(self.TRACKING_RECORDER_TOPIC, self.tracking_recorder_class)
        )
        return self._construct(cls, tracking_table_name=self._table_name("tracking", "notification_tracking"))

    def process_recorder(self) -> ProcessRecorder:
        """Return a recorder of the application's events and of its tracking positions."""
        cls = self._recorder_class(self.PROCESS_RECORDER_TOPIC, self.process_recorder_class)
        return self._construct(
            cls,
            events_table_name=self._table_name("events", "stored_events"),
            tracking_table_name=self._table_name("tracking", "notification_tracking"),
        )

    def _construct(self, cls: type[_TRecorder], **kwargs: Any) -> _TRecorder:
        recorder = cls(datastore=self.datastore, schema_name=self.settings.schema, **kwargs)
        if self.env_create_table():
            recorder.create_table()
        return recorder

    def _table_name(self, purpose: str, without_application: str) -> str:
        name = f"{self.env.name.lower()}_{purpose}" if self.env.name else without_application
        return self.settings.table_prefix + name

    def _recorder_class(self, variable: str, default: type[_TRecorder]) -> type[_TRecorder]:
        topic = Settings.read_topic(self.env, variable)
        if topic is None:
            return default
        cls = self._resolve(variable, topic)
        wanted = next(base for base in default.__mro__ if base.__module__.startswith("eventsourcing_sqlalchemy."))
        if not isinstance(cls, type) or not issubclass(cls, wanted):
            msg = f"{variable}={topic!r} (application {self.env.name!r}) must name a subclass of {wanted.__name__}."
            raise SettingsError(msg, variable=variable)
        return cast("type[_TRecorder]", cls)

    def env_create_table(self) -> bool:
        """Return whether to create tables (CREATE_TABLE, default yes)."""
        return Settings.read_create_table(self.env)

    def close(self) -> None:
        """Release the engine; the last application that does so closes its connections."""
        self._claim = None
        self.datastore.close()


Factory = SQLAlchemyFactory

library_hooks.install()


class _Claim:
    """An application's claim to the variables that begin with its name, held by its factories."""

    def __init__(self, application: str) -> None:
        self.application = application


_claims: weakref.WeakValueDictionary[str, _Claim] = weakref.WeakValueDictionary()
_claims_lock = Lock()


def _claim_name(application: str) -> _Claim:
    """Return an application's claim; raises SettingsError when another application reads the same variables."""
    name = environment_name(application)
    with _claims_lock:
        claim = _claims.get(name)
        if claim is None:
            claim = _claims[name] = _Claim(application)
    if claim.application != application:
        msg = (
            f"The applications {claim.application!r} and {application!r} would both read variables that begin with "
            f"{name}_. Give one of them another name, so that neither gets the settings of the other."
        )
        raise SettingsError(msg, variable=f"{name}_SQLALCHEMY_URL")
    return claim

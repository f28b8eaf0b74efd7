"""The registry's database: connections, tables, and the meaning of errors."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa
from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
)
from sqlalchemy.exc import SQLAlchemyError

from eventsourcing_sqlalchemy.errors import sqlstate, translate
from eventsourcing_sqlalchemy.migrations import retry_while_locked
from eventsourcing_sqlalchemy.recorders import SQLAlchemyApplicationRecorder
from eventsourcing_sqlalchemy.sequences import find_behind
from tenancy.errors import RegistryMissing, RegistryUnavailable, TenancyError
from tenancy.model.encodings import PLAIN, Encoding, check_encoding
from tenancy.registry.history import FLEET_ID, FleetHistory, RegistryApplication
from tenancy.registry.migrations import FORMAT, check_format, steps_from
from tenancy.registry.remedies import remedy_of
from tenancy.registry.tables import RegistryTables

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from eventsourcing_sqlalchemy.dialects.protocols import Executor, SequenceBehind
    from tenancy.settings import TenancySettings

__all__ = ["RegistryDatabase"]

# The process's connection settings also apply to the registry.
_OF_CONNECTIONS: Final = (
    "SQLALCHEMY_POOL_TIMEOUT",
    "SQLALCHEMY_POOL_RECYCLE",
    "SQLALCHEMY_POOL_PRE_PING",
    "SQLALCHEMY_CONNECT_TIMEOUT",
    "SQLALCHEMY_LOCK_TIMEOUT",
    "SQLALCHEMY_IDLE_IN_TRANSACTION_SESSION_TIMEOUT",
    "SQLALCHEMY_COMMIT_RESOLVE_TIMEOUT",
    "SQLALCHEMY_PREPARE_STATEMENTS",
    "SQLALCHEMY_SQLITE_SYNCHRONOUS",
)
# Attempts to create the tables while other processes create them, too.
_ATTEMPTS: Final = 10
_INSUFFICIENT_PRIVILEGE: Final = "42501"
# undefined_table, invalid_schema_name
_OF_MISSING: Final = ("42P01", "3F000")


class RegistryDatabase:
    """Connections to the registry. Safe to use from many threads.

    Raises RegistryUnavailable when the database cannot be reached and RegistryMissing when it has no registry.
    """

    def __init__(self, settings: TenancySettings) -> None:
        environment = {
            "PERSISTENCE_MODULE": "eventsourcing_sqlalchemy",
            "SQLALCHEMY_URL": settings.control_url.render_as_string(hide_password=False),
            "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": settings.control_creator_topic or "",
            "CREATE_TABLE": "no",
        }
        environment |= {key: settings.environment[key] for key in _OF_CONNECTIONS if key in settings.environment}
        where = "SQLALCHEMY_SCHEMA" if settings.control_has_schemas else "SQLALCHEMY_TABLE_PREFIX"
        environment[where] = settings.control_schema if settings.control_has_schemas else f"{settings.control_schema}_"
        self._application = RegistryApplication(env=environment)
        self._recorder = cast("SQLAlchemyApplicationRecorder", self._application.recorder)
        self._rows = RegistryTables(
            settings.control_schema if settings.control_has_schemas else None,
            "" if settings.control_has_schemas else f"{settings.control_schema}_",
        )
        self._where = str(self._recorder.datastore.shared)
        self._is_format_checked = False
        # Taken from the error itself: another process may create the table before a second query could look.
        self._codes_of_missing = _OF_MISSING if self._recorder.datastore.dialect.is_server else (None,)

    def __str__(self) -> str:
        return f"the registry in {self._where}"

    def __repr__(self) -> str:
        return f"Registry({self._where})"

    @property
    def rows(self) -> RegistryTables:
        """The tables, for queries in :meth:`reading` and :meth:`writing`."""
        return self._rows

    @property
    def datastore(self) -> SQLAlchemyDatastore:
        """The connections of the registry."""
        return self._recorder.datastore

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._application.close()

    # -- tables --

    def init(
        self,
        fleet_settings: Mapping[str, Any],
        encodings: Mapping[str, Encoding] = MappingProxyType({}),
        *,
        accept_encodings: bool = False,
    ) -> None:
        """Create missing tables, and record the fleet's settings; safe in many processes at once.

        Raises ProgrammingError for a missing right, which says what to grant, and as :meth:`record_encodings` does.
        """
        with suppress(RegistryMissing):
            self.fleet_settings()  # raises RegistryMismatch for a registry of another format
        for attempt in range(_ATTEMPTS):
            try:
                self._create_tables()
                break
            except PersistenceError as error:
                if (unavailable := _unavailable(error)) is not None:
                    raise unavailable from error
                is_concurrent = isinstance(
                    error, IntegrityError | ProgrammingError
                )  # another process creates them, too
                if not is_concurrent or attempt == _ATTEMPTS - 1 or sqlstate(error) == _INSUFFICIENT_PRIVILEGE:
                    raise
        # First: this compares them with the previously recorded applications.
        self.record_encodings(encodings, accept=accept_encodings)
        for key, value in fleet_settings.items():
            self.record(key, value)

    def _create_tables(self) -> None:
        self._recorder.create_table()
        with self._recorder.transaction() as session:
            self._rows.metadata.create_all(session.connection())
            # In the same transaction: a registry without its key could not record tombstones.
            known = set(session.scalars(sa.select(self._rows.fleet_settings.c.key)))
            for key, value in {"format": FORMAT, "hash_key": secrets.token_hex(32)}.items():
                if key not in known:
                    session.execute(sa.insert(self._rows.fleet_settings).values(key=key, value=value))

    def migrate(self) -> bool:
        """Bring the registry to the current format; return whether it had an older one.

        Safe in many processes at once, and while processes of the version before use the registry. Raises
        RegistryMissing, and RegistryMismatch for a newer format.
        """
        with self._translating():
            # Read first: an unreachable database is reported at once, and not retried.
            is_migrated = self._read_format() != FORMAT and retry_while_locked(self._migrate)
            self._recorder.migrate_tables()
        return is_migrated

    def _migrate(self) -> bool:
        settings, dialect = self._rows.fleet_settings, self.datastore.dialect.name
        of_format = settings.c.key == "format"
        with self._recorder.transaction() as session:
            # Other processes that migrate wait here, and find the new format then.
            known = session.scalar(sa.select(settings.c.value).where(of_format).with_for_update())
            if not (isinstance(known, int) and known < FORMAT):
                check_format(known, self._where)
                return False
            for statement in steps_from(known, dialect, self._rows):
                run = partial(_run, statement=statement)
                self.datastore.run_in_session(session, run, savepoint=False)
            session.execute(sa.update(settings).where(of_format).values(value=FORMAT))
            return True

    def check_format(self) -> None:
        """Raise RegistryMismatch for a registry of an older or newer format. A role without the right to read the
        format passes.
        """
        with self._translating():
            self._check_format()

    def _check_format(self) -> None:
        try:
            check_format(self._read_format(), self._where)
        except PersistenceError as error:
            if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
                raise
        self._is_format_checked = True

    def _read_format(self) -> Any:
        settings = self._rows.fleet_settings
        with self._recorder.transaction(commit=False) as session:
            return session.scalar(sa.select(settings.c.value).where(settings.c.key == "format"))

    def record(self, key: str, value: Any) -> None:
        """Record a setting of the fleet; idempotent, and safe in many processes at once."""
        _retry_conflicts(partial(self._record, key, value))

    def _record(self, key: str, value: Any) -> None:
        settings = self._rows.fleet_settings
        with self.writing() as session:
            known = session.execute(sa.select(settings.c.value).where(settings.c.key == key)).first()
            if known is None:
                session.execute(sa.insert(settings).values(key=key, value=value))
            elif known.value != value:
                session.execute(sa.update(settings).where(settings.c.key == key).values(value=value))

    def fleet_settings(self) -> dict[str, Any]:
        """Return the settings that :meth:`init` has recorded, by key."""
        with self.reading() as session:
            return {row.key: row.value for row in session.execute(sa.select(self._rows.fleet_settings))}

    def encodings(self) -> dict[str, Encoding]:
        """Return how applications' events are stored. A missing application has no events, or plain ones."""
        with self.reading() as session:
            return self._encodings(session)

    def _encodings(self, session: Session) -> dict[str, Encoding]:
        rows = session.execute(sa.select(self._rows.encodings))
        return {row.application: Encoding(row.cipher, row.compressor) for row in rows}

    def record_encodings(self, used: Mapping[str, Encoding], *, accept: bool = False) -> None:
        """Record how this process stores the events of new applications.

        Raises EncodingMismatch for an application that is recorded with another encoding; ``accept`` replaces it.
        """
        _retry_conflicts(partial(self._record_encodings, used, accept=accept))

    def _record_encodings(self, used: Mapping[str, Encoding], *, accept: bool) -> None:
        if not used or self.encodings().items() >= used.items():
            return
        settings, table = self._rows.fleet_settings, self._rows.encodings
        with self.writing() as session, self._reaching():
            # Read first: if another process records an encoding from here on, the save below conflicts.
            history = self._fleet_history()
            # Older registries have applications without a recorded encoding: their events may be plain.
            kept = session.scalar(sa.select(settings.c.value).where(settings.c.key == "applications")) or ()
            rows = self._encodings(session)
            recorded = {each["application"]: PLAIN for each in kept} | rows
            for application, encoding in sorted(used.items()):
                if rows.get(application) == encoding:
                    continue
                if not accept:
                    check_encoding(application, encoding, recorded.get(application, encoding))
                session.execute(sa.delete(table).where(table.c.application == application))
                session.execute(sa.insert(table).values(application=application, **encoding._asdict()))
                history.record_encoding(application, *encoding)
            # Other processes see the change through this event.
            self._application.save(history)

    def _fleet_history(self) -> FleetHistory:
        try:
            history: FleetHistory = self._application.repository.get(FLEET_ID)
        except AggregateNotFoundError:
            return FleetHistory()
        return history

    @cached_property
    def _hash_key(self) -> bytes:
        return bytes.fromhex(self.fleet_settings()["hash_key"])

    def sequences_behind(self) -> list[SequenceBehind]:
        """Return the registry's event sequence if it is behind its table."""
        with self._reaching():
            return find_behind(self.datastore, [spec.name for spec in self._recorder.tables if spec.kind == "events"])

    # -- transactions --

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session for queries."""
        with self._reaching(), self._recorder.transaction(commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session for changes; it commits at the end of the block.

        Errors of the block itself are not translated: they may be about another database.
        """
        with ExitStack() as resources:
            with self._reaching():
                session = resources.enter_context(self._recorder.transaction())
            yield session
            with self._reaching():
                resources.close()

    @contextmanager
    def writing_rows(self) -> Iterator[Session]:
        """Yield a session as :meth:`writing` does, and translate the block's errors: it must use this session only."""
        with self._reaching(), self.writing() as session:
            yield session

    # -- errors --

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        with self._translating():
            if not self._is_format_checked:  # once in a process: steps leave the registry usable for this version
                self._check_format()
            yield

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (PersistenceError, SQLAlchemyError) as error:
            if (unavailable := _unavailable(error)) is not None:
                raise unavailable from error
            translated = translate(error)
            if isinstance(translated, InterfaceError):
                msg = "The registry's connections are closed, and so is their Tenancy object."
                raise TenancyError(msg, remedy="Construct another one.") from error
            if isinstance(translated, ProgrammingError) and sqlstate(error) in self._codes_of_missing:
                msg = f"There is no registry in {self._where}."
                raise RegistryMissing(msg, remedy="Create it: tenancy init") from error
            if translated is error:
                raise
            raise translated from error


def _run(executor: Executor, statement: str) -> None:
    executor.fetch(statement)


def _retry_conflicts(record: Callable[[], None]) -> None:
    """Call a function again when another process has just recorded the same."""
    for attempt in range(_ATTEMPTS):
        try:
            record()
        except IntegrityError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _unavailable(error: Exception) -> RegistryUnavailable | None:
    """Return the error to raise instead if the registry cannot be used, or None."""
    translated, remedy = translate(error), remedy_of(error)
    if remedy is not None:
        return RegistryUnavailable(f"The registry cannot be used: {translated}.", remedy=remedy)
    if isinstance(translated, OperationalError):
        msg = f"The registry does not answer: {translated}."
        return RegistryUnavailable(msg, remedy="Check the server, and TENANCY_CONTROL_URL or SQLALCHEMY_URL.")
    return None

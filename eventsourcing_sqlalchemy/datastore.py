"""The database of one application: a shared engine, or a scoped session that the user manages.

There are two ways to the database. Calls of ours run on a pooled connection that commits each statement by itself.
Calls inside a transaction, and all calls where a scoped session is configured, run on the connection of that session.
Both run the same statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from itertools import count
from typing import Any, ClassVar, TypeVar, cast

from eventsourcing.persistence import InterfaceError, NotSupportedError, PersistenceError, ProgrammingError
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventsourcing_sqlalchemy.dialects import dialect_of
from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.dialects.protocols import Executor
from eventsourcing_sqlalchemy.engine_settings import EngineSettings, OriginatorIDType
from eventsourcing_sqlalchemy.engines.engine import EngineSource, SharedEngine
from eventsourcing_sqlalchemy.engines.executors import ConnectionExecutor, connection_of
from eventsourcing_sqlalchemy.engines.references import acquire_engine
from eventsourcing_sqlalchemy.engines.sessions import begin_session
from eventsourcing_sqlalchemy.errors import ConnectionLostError, cause_of, translate
from eventsourcing_sqlalchemy.limiting import AppendLimiter
from eventsourcing_sqlalchemy.notifications.wakeups import CHANNEL, Waiter, payload
from eventsourcing_sqlalchemy.scoped_sessions import bind_of
from eventsourcing_sqlalchemy.settings import parse_url
from eventsourcing_sqlalchemy.shared_resources import Reference
from eventsourcing_sqlalchemy.transactions import Transaction, current_transaction, transaction_to_write, undoable

__all__ = ["SQLAlchemyDatastore"]

_T = TypeVar("_T")

_numbers = count()


class SQLAlchemyDatastore:
    """The database of one application. Safe to use from many threads.

    Pass exactly one of: ``url`` (an engine that all datastores with the same URL share), ``engine`` or
    ``session_maker`` (yours: never closed here), or ``session`` (a scoped session or an adapter of one: never
    committed, rolled back or closed here). ``engine_kwargs`` go to ``create_engine``; with any but ``creator`` the
    engine is not shared.

    Raises SettingsError for a URL that cannot be used and NotSupportedError for an engine of another database.
    """

    sequence_remedy: ClassVar[str] = "Repair it: recorder.repair_sequence()"
    """The remedy for a sequence that is behind its table, for messages."""
    limiter: AppendLimiter | None = None  # what may refuse events; set in subclasses

    def __init__(
        self,
        *,
        session: Any = None,
        session_maker: sessionmaker[Session] | None = None,
        url: str | URL | None = None,
        autoflush: bool = True,
        engine: Engine | None = None,
        application: str = "",
        settings: EngineSettings | None = None,
        originator_id_type: OriginatorIDType = "uuid",
        **engine_kwargs: Any,
    ) -> None:
        self.application = application
        self.originator_id_type = originator_id_type
        self.scoped_session: scoped_session[Session] | None = None
        self._reference: Reference[SharedEngine] | None = None
        self._is_closed = False
        self._number = next(_numbers)
        self._session_maker = session_maker
        self.settings: EngineSettings
        """The settings that are in force."""
        if session is not None:
            self.settings = (settings or EngineSettings()).with_defaults()
            self.set_scoped_session(session)
            return
        if session_maker is not None:
            engine = session_maker.kw.get("bind")
            if not isinstance(engine, Engine):
                msg = "The session maker has no engine: construct it with bind=engine."
                raise ProgrammingError(msg)
        if engine is None and url is None:
            msg = "A datastore needs one of url, engine, session_maker and session."
            raise ProgrammingError(msg)
        creator = engine_kwargs.pop("creator", None)
        source = EngineSource(
            url=None if engine is not None else parse_url(url) if isinstance(url, str) else url,
            creator=creator,
            engine=engine,
            options=tuple(engine_kwargs.items()),
        )
        self._reference = acquire_engine(source, settings or EngineSettings(), application)
        self._reference.release_when_collected(self)
        self.settings = self._reference.resource.settings
        if session_maker is None:
            self._session_maker = sessionmaker(bind=self._reference.resource.public, autoflush=autoflush)

    # -- for users --

    @property
    def engine(self) -> Engine:
        """An engine with ordinary transactions, on the pool that all applications share; after :func:`close`, one that
        is disposed.
        """
        if self.scoped_session is not None:
            bind = bind_of(self.scoped_session)
            return bind if isinstance(bind, Engine) else bind.engine
        return self._disposed_engine if self._is_closed else self.shared.public

    @cached_property
    def _disposed_engine(self) -> Engine:
        assert self._reference is not None
        return self._reference.resource.disposed()

    @property
    def session_maker(self) -> sessionmaker[Session]:
        """The session maker of :func:`transaction`; its ``kw`` may be changed."""
        if self._session_maker is None:
            msg = "A datastore with a scoped session has no session maker. Configure the scoped session."
            raise ProgrammingError(msg)
        return self._session_maker

    def set_scoped_session(self, session: Any) -> None:
        """Use a scoped session, which the user commits, from now on."""
        self.scoped_session = session

    def transaction(self, commit: bool = True) -> Transaction:
        """Return a context manager that yields a ``Session``; see :class:`Transaction`."""
        return Transaction(self, commit=commit)

    @contextmanager
    def get_connection(self) -> Iterator[Connection]:
        """Yield a ``Connection`` of the public engine; commit on it, or what was done is rolled back."""
        self.admit(writes=True)
        with self._public_connection() as connection:
            yield connection

    def close(self) -> None:
        """Release the engine; the last application that does so closes its connections. A second call does nothing."""
        self._is_closed = True
        if self._reference is not None:
            self._reference.release()

    # -- for recorders --

    @property
    def shared(self) -> SharedEngine:
        """The engine that is shared with other applications."""
        if self._reference is None:
            msg = "This datastore uses a scoped session and has no engine of its own. Use the session's engine."
            raise ProgrammingError(msg)
        if self._is_closed:
            raise self._closed_error()
        return self._reference.resource

    def _closed_error(self) -> InterfaceError:
        return InterfaceError(f"Application {self.application!r} is closed. Construct it again to use it.")

    @cached_property
    def dialect(self) -> Dialect:
        """The capabilities of the database."""
        return dialect_of(self.engine.dialect) if self._reference is None else self._reference.resource.dialect

    @property
    def has_prepared_connections(self) -> bool:
        """Whether all connections that :func:`run` uses were opened by an engine of ours."""
        return self._reference is not None and self.shared.is_ours

    def admit(self, *, writes: bool) -> None:
        """Raise an exception to refuse a call; overridden in subclasses.

        Called once for each read, and with ``writes`` for each write; also when a transaction begins and commits.
        """

    def default_schema(self) -> str | None:
        """Return the schema of tables that set none; connects unless the engine has connected before."""
        engine = self.engine
        if self.dialect.has_schemas and engine.dialect.default_schema_name is None:
            with self._public_connection():
                pass  # SQLAlchemy asks for it at the first connection
        return self.dialect.default_schema(engine.dialect.default_schema_name)

    def current_session(self) -> Session | None:
        """Return the session that calls in this context must use: the open transaction's, the scoped one, or None."""
        transaction = current_transaction(self)
        return cast("Session | None", self.scoped_session) if transaction is None else transaction.session

    def session_to_write(self) -> Session | None:
        """Return :func:`current_session`; raises ProgrammingError when an open transaction would not commit a write."""
        transaction = transaction_to_write(self)
        if transaction is None:
            return None if self.scoped_session is None else cast("Session", self.scoped_session)
        if not transaction.commit:
            msg = (
                "Nothing can be recorded inside a transaction with commit=False: it would be rolled back. "
                "Omit commit=False."
            )
            raise ProgrammingError(msg)
        return transaction.session

    def writing(self) -> AbstractContextManager[Any]:
        """Return a context for a write transaction: where the database allows one writer, threads queue in it."""
        dialect = self.dialect
        return dialect.writing(0.0) if dialect.is_server else self._writing()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        ignoring = nullcontext() if self._reference is None else self.shared.wakeups.ignoring()
        with self.dialect.writing(self.settings.lock_timeout or 0.0), ignoring:
            yield

    def begin_session(self, resources: ExitStack, *, commit: bool) -> Session:
        """Return a session in a new transaction; ``resources`` closes it."""
        if commit:
            resources.enter_context(self.writing())
        return begin_session(self.shared, self.session_maker, resources, commit=commit)

    def run(self, work: Callable[[Executor], _T], subject: str = "") -> _T:
        """Call ``work`` on a connection of its own, not in the session of a transaction; errors are the library's.

        Each statement commits by itself, except where a scoped session is configured: there, they commit together at
        the end.
        """
        try:
            if self._reference is not None:
                return self.shared.run(work, self._number)
            with self._public_connection() as connection:
                result = work(ConnectionExecutor(connection))
                if connection is not bind_of(self.scoped_session):
                    connection.commit()
                return result
        except Exception as error:  # noqa: BLE001 (whatever a driver raises)
            raise self.error(error, subject) from cause_of(error)

    def run_in_session(
        self, session: Session, work: Callable[[Executor], _T], subject: str = "", *, savepoint: bool = True
    ) -> _T:
        """Call ``work`` in a session's transaction if it is admitted; errors are the library's.

        In a savepoint, so that the transaction stays usable when ``work`` fails, unless ``work`` only reads.
        """
        self.admit(writes=savepoint)
        return self._run_in_session(session, work, subject, savepoint=savepoint)

    def _run_in_session(self, session: Session, work: Callable[[Executor], _T], subject: str, *, savepoint: bool) -> _T:
        if self._is_closed and self._reference is not None:
            raise self._closed_error()
        try:
            connection = connection_of(session, self.dialect)
            if not savepoint:
                return work(ConnectionExecutor(connection))
            self.dialect.ensure_transaction(connection)
            with undoable(connection):
                return work(ConnectionExecutor(connection))
        except Exception as error:  # noqa: BLE001 (whatever a driver raises)
            raise self.error(error, subject) from cause_of(error)

    @contextmanager
    def savepoint(self, session: Session) -> Iterator[None]:
        """Undo the block's changes in a session's transaction if it raises an error, also those that the session has
        not flushed; errors are the library's.
        """
        try:
            self.dialect.ensure_transaction(connection_of(session, self.dialect))
            with session.begin_nested():
                yield
        except SQLAlchemyError as error:
            raise self.error(error, "") from error

    def fetch(self, statement: str, parameters: Sequence[Any] = (), subject: str = "") -> Sequence[Sequence[Any]]:
        """Return the rows of a statement that only reads, inside the open transaction of this context if there is one.

        A connection that breaks is replaced once; so is one that has prepared the statement for columns of other types.
        """
        session = self.current_session()
        if session is not None:
            return self.run_in_session(
                session, lambda executor: executor.fetch(statement, parameters), subject, savepoint=False
            )
        self.admit(writes=False)
        try:
            return self.run(lambda executor: executor.fetch(statement, parameters), subject)
        except (ConnectionLostError, NotSupportedError):
            return self.run(lambda executor: executor.fetch(statement, parameters), subject)

    def committed(self, key: int) -> None:
        """Wake the subscriptions of a table, because events were committed to it."""
        if self._reference is not None:
            self._reference.resource.wakeups.committed(key)

    def will_commit(self, session: Session, key: int) -> None:
        """Wake the subscriptions of a table when the session commits, because events were written in its
        transaction.
        """
        transaction = current_transaction(self)
        if transaction is not None and transaction.is_ours and transaction.session is session:
            transaction.wakeups.add(key)
        elif self.dialect.can_notify:
            # The user commits, and the database notifies subscribers then.
            parameters = (CHANNEL, payload("", (key,)))
            self._run_in_session(
                session, lambda executor: executor.fetch(self.dialect.notify_statement, parameters), "", savepoint=False
            )

    def wait_for(self, key: int) -> Waiter:
        """Return a waiter that is woken when events are committed to a table."""
        return self.shared.wakeups.join(key)

    def without_scoped_session(self) -> SQLAlchemyDatastore:
        """Return a datastore on the same engine that reads outside of the scoped session; itself without one."""
        if self.scoped_session is None:
            return self
        return SQLAlchemyDatastore(
            engine=self.engine, application=self.application, originator_id_type=self.originator_id_type
        )

    def error(self, error: Exception, subject: str) -> PersistenceError:
        """Return the library's exception for an error of SQLAlchemy or a driver, with a remedy where one is known."""
        return translate(error, subject, self.dialect.remedies)

    # -- public connections --

    @contextmanager
    def _public_connection(self) -> Iterator[Connection]:
        if self.scoped_session is not None:
            bind = bind_of(self.scoped_session)
            if isinstance(bind, Connection):
                # Bound to one connection, as tests do.
                yield bind
                return
            engine = bind
        else:
            engine = self.shared.public
        try:
            connection = engine.connect()
        except Exception as error:  # noqa: BLE001 (whatever a driver raises)
            if self._reference is not None:
                raise self.shared.connect_error(error) from cause_of(error)
            raise translate(error, "Cannot connect") from cause_of(error)
        with connection:
            yield connection

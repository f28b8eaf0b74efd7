"""Create the tables that applications and views create by themselves, by constructing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from eventsourcing.persistence import InfrastructureFactory, PersistenceError
from eventsourcing.utils import Environment, TopicError, resolve_topic

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.naming import TableName
from tenancy.errors import NotRegistered, TenancyError

if TYPE_CHECKING:
    from tenancy.model.application_spec import ApplicationSpec

__all__ = ["check_code", "construct"]

_Look = Callable[[TableName], None]


def check_code(application_spec: ApplicationSpec) -> None:
    """Raise NotRegistered if creating an application's tables requires code that cannot be imported."""
    if application_spec.creates_extra_tables:
        _code(application_spec)


def _code(application_spec: ApplicationSpec) -> Any:
    try:
        return resolve_topic(application_spec.view or application_spec.topic)
    except TopicError as error:
        msg = f"The tables of {application_spec.application!r} can only be created by its code: {error}."
        raise NotRegistered(msg, remedy="Pass it: --app module:name, from the directory of the module.") from error


def construct(application_spec: ApplicationSpec, environment: Mapping[str, str], look: _Look) -> None:
    """Construct an application or a view once, which creates its extra tables.

    ``look`` is called with each table of a MetaData, before SQLAlchemy creates it or finds that it exists; it may
    raise. Raises NotRegistered if the code cannot be imported, and TenancyError if it fails.
    """
    code = _code(application_spec)
    try:
        with _looking(look):
            if application_spec.view:
                env = Environment(application_spec.application, {**environment})
                with closing(InfrastructureFactory.construct(env)) as factory:
                    factory.tracking_recorder(code)
            else:
                code(env=environment).close()
    except (TenancyError, PersistenceError, SettingsError):
        raise
    except (Exception, SystemExit) as error:
        # First line only: SQLAlchemy and drivers append SQL with parameters.
        what = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        msg = f"{application_spec.application!r} could not be constructed, which creates its tables: {what}."
        raise TenancyError(msg, remedy="Fix the error, then run: tenancy doctor --repair") from error


# The callback for tables that are created in this context.
_look: ContextVar[_Look | None] = ContextVar("_look", default=None)


@contextmanager
def _looking(look: _Look) -> Iterator[None]:
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


def _before_create(target: sa.MetaData | sa.Table, connection: sa.Connection, **options: Any) -> None:
    look = _look.get()
    if look is None:
        return
    if isinstance(target, sa.Table):
        tables: Iterable[sa.Table] = (target,)
    else:
        # Including tables that exist: the event's own list omits them.
        wanted = options["_ddl_runner"].tables
        tables = target.tables.values() if wanted is None else wanted
    for table in tables:
        look(TableName(connection.schema_for_object(table), table.name))


# Never removed: an engine's listeners cannot be changed while other threads use it.
sa.event.listen(sa.MetaData, "before_create", _before_create)
sa.event.listen(sa.Table, "before_create", _before_create)

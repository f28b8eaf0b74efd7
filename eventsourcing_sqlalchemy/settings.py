"""Read environment variables. No other module of this package does.

An application's own variable (``TRAININGSCHOOL_SQLALCHEMY_SCHEMA``) takes precedence over the general one
(``SQLALCHEMY_SCHEMA``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, cast

from eventsourcing.utils import Environment, strtobool
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from eventsourcing_sqlalchemy.dialects import SUPPORTED, supported_text
from eventsourcing_sqlalchemy.dialects.base import Dialect
from eventsourcing_sqlalchemy.engine_settings import EngineSettings, OriginatorIDType
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.naming import environment_name, expand_template

__all__ = ["Location", "Settings", "SettingsReader", "mask", "parse_url"]

_T = TypeVar("_T")
_D = TypeVar("_D")

_ALIASES: Final = {"postgres": "postgresql"}  # as some hosting platforms spell it
_HOST: Final = re.compile(r"[\w.-]+(:\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where an application's tables are, and how to connect to their database."""

    url: URL | None = field(repr=False)  # its password and its query may be secrets
    connection_creator_topic: str | None
    schema: str | None
    table_prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The validated settings of one application."""

    application: str
    url: URL | None = field(repr=False)  # its password and its query may be secrets
    schema: str | None
    table_prefix: str
    autoflush: bool
    originator_id_type: OriginatorIDType
    scoped_session_topic: str | None
    connection_creator_topic: str | None
    engine_topic: str | None
    engine: EngineSettings

    @classmethod
    def read(cls, env: Environment, location: Location | None = None) -> Settings:
        """Read the settings of the application that ``env`` belongs to; a ``location`` replaces its variables.

        Raises SettingsError, which names the variable and the accepted values.
        """
        read = SettingsReader(env)
        where = read.location() if location is None else location
        return cls(
            application=env.name,
            url=where.url,
            schema=where.schema,
            table_prefix=where.table_prefix,
            autoflush=read.boolean("SQLALCHEMY_AUTOFLUSH", True),
            originator_id_type=cast(
                "OriginatorIDType", (read.choice("ORIGINATOR_ID_TYPE", ("uuid", "text")) or "uuid")
            ),
            scoped_session_topic=read.text("SQLALCHEMY_SCOPED_SESSION_TOPIC"),
            connection_creator_topic=where.connection_creator_topic,
            engine_topic=read.text("SQLALCHEMY_ENGINE_TOPIC"),
            engine=EngineSettings(
                pool_size=read.number("SQLALCHEMY_POOL_SIZE", int, None, minimum=1),
                max_overflow=read.number("SQLALCHEMY_MAX_OVERFLOW", int, None, minimum=0),
                pool_timeout=read.number("SQLALCHEMY_POOL_TIMEOUT", float, None, minimum=0),
                pool_recycle=read.number("SQLALCHEMY_POOL_RECYCLE", float, None, minimum=-1),
                pool_pre_ping=read.boolean("SQLALCHEMY_POOL_PRE_PING", None),
                connect_timeout=read.number("SQLALCHEMY_CONNECT_TIMEOUT", float, None, minimum=0),
                lock_timeout=read.number("SQLALCHEMY_LOCK_TIMEOUT", float, None, minimum=0),
                idle_in_transaction_session_timeout=read.number(
                    "SQLALCHEMY_IDLE_IN_TRANSACTION_SESSION_TIMEOUT", float, None, minimum=0
                ),
                commit_resolve_timeout=read.number("SQLALCHEMY_COMMIT_RESOLVE_TIMEOUT", float, None, minimum=0),
                prepare_statements=cast(
                    'Literal["auto", "on", "off"] | None',
                    read.choice("SQLALCHEMY_PREPARE_STATEMENTS", ("auto", "on", "off")),
                ),
                listen_url=read.url("SQLALCHEMY_LISTEN_URL"),
                sqlite_synchronous=cast(
                    'Literal["FULL", "NORMAL"] | None',
                    read.choice("SQLALCHEMY_SQLITE_SYNCHRONOUS", ("FULL", "NORMAL")),
                ),
            ),
        )

    @staticmethod
    def read_create_table(env: Environment) -> bool:
        """Return whether to create tables (CREATE_TABLE, default yes)."""
        return SettingsReader(env).boolean("CREATE_TABLE", True)

    @staticmethod
    def read_topic(env: Environment, variable: str) -> str | None:
        """Return a variable's topic, or None."""
        return SettingsReader(env).text(variable)


class SettingsReader:
    """Reads single variables, of one application if the environment has a name. A blank value counts as unset.

    Errors name the variable, its value unless it may be secret, and the accepted form.
    """

    def __init__(self, env: Environment) -> None:
        self._env = env

    def raw(self, key: str) -> tuple[str, str] | None:
        """Return (variable name, value) of the variable that is set, or None."""
        keys = self._env.create_keys(key)
        exportable = f"{environment_name(self._env.name)}_{key}"
        if self._env.name and exportable not in keys:
            keys.insert(1, exportable)
        for name in keys:
            value = dict.get(self._env, name)
            if value is not None:
                return name, value
        return None

    def location(self) -> Location:
        """Return where the tables are."""
        # A user's session or engine takes precedence over the URL, which is then not even parsed.
        ignores_url = self.text("SQLALCHEMY_SCOPED_SESSION_TOPIC") or self.text("SQLALCHEMY_ENGINE_TOPIC")
        return Location(
            url=None if ignores_url else self.url("SQLALCHEMY_URL"),
            connection_creator_topic=self.text("SQLALCHEMY_CONNECTION_CREATOR_TOPIC"),
            schema=self.template("SQLALCHEMY_SCHEMA"),
            table_prefix=self.template("SQLALCHEMY_TABLE_PREFIX") or "",
        )

    def _find(self, key: str) -> tuple[str, str] | None:
        """Return (variable name, stripped value) of the variable that is set, or None if it is blank."""
        found = self.raw(key)
        return (found[0], found[1].strip()) if found and found[1].strip() else None

    def text(self, key: str) -> str | None:
        """Return the value, without leading and trailing spaces."""
        found = self._find(key)
        return found and found[1]

    def template(self, key: str) -> str | None:
        """Return a name, with its placeholders replaced.

        Leading and trailing spaces belong to the name. An empty value means None and overrides the general variable.
        """
        found = self.raw(key)
        return (expand_template(found[1], self._env.name, found[0]) or None) if found else None

    def url(self, key: str) -> URL | None:
        """Return a URL with an explicit driver; see :func:`parse_url`."""
        found = self.raw(key)
        if found is None:
            return None
        variable, value = found
        if not value.strip():
            if key == "SQLALCHEMY_LISTEN_URL":
                return None
            raise self._error(variable, "is empty", "Set it, e.g. sqlite:///school.db or postgresql://user@host/db")
        return parse_url(value.strip(), variable, self._env.name)

    def boolean(self, key: str, default: _D) -> bool | _D:
        """Return a truth value in one of the library's spellings."""
        found = self._find(key)
        if found is None:
            return default
        try:
            return bool(strtobool(found[1]))
        except ValueError:
            raise self._not_accepted(key, "yes, no, true, false, on, off, 1 or 0") from None

    def number(
        self,
        key: str,
        kind: Callable[[str], _T],
        default: _D,
        *,
        minimum: float,
        maximum: float | None = None,
        unit: str = "seconds",
    ) -> _T | _D:
        """Return a number; ``kind`` is int, or float for a number of a unit."""
        found = self._find(key)
        if found is None:
            return default
        try:
            value: Any = kind(found[1])
        except ValueError:
            value = None
        # Written so that "nan" is rejected too.
        if value is None or not (minimum <= value < float("inf") and (maximum is None or value <= maximum)):
            what = "a whole number" if kind is int else f"a number of {unit}"
            limits = f", at least {minimum:g}" if maximum is None else f" from {minimum:g} to {maximum:.0f}"
            raise self._not_accepted(key, f"{what}{limits}")
        return cast("_T", value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        """Return one of the choices, in their spelling; the variable's may differ in case."""
        found = self._find(key)
        if found is None:
            return None
        for choice in choices:
            if found[1].lower() == choice.lower():
                return choice
        *others, last = choices
        raise self._not_accepted(key, f"{', '.join(others)} or {last}")

    def _not_accepted(self, key: str, accepted: str) -> SettingsError:
        variable, value = self.raw(key) or (key, "")
        return self._error(variable, f"is {value!r}", f"Set {accepted}")

    def _error(self, variable: str, what: str, remedy: str) -> SettingsError:
        return SettingsError(f"{variable} {what}{_owner(self._env.name)}. {remedy}.", variable=variable)


def _owner(application: str) -> str:
    return f" (application {application!r})" if application else ""


def parse_url(value: str, variable: str = "url", application: str = "") -> URL:
    """Return the URL with an explicit driver.

    Raises SettingsError for a malformed URL and for an unsupported database or driver.
    """
    owner = _owner(application)
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        url = None
    if url is None:
        # Neither quote nor chain the error, not even as the context that "from None" leaves: a malformed URL may hold
        # a password anywhere.
        msg = (
            f"{variable} is not a database URL{owner}. The form is postgresql://user:password@host/database or "
            "sqlite:///file.db."
        )
        raise SettingsError(msg, variable=variable)
    backend, _, driver = url.drivername.partition("+")
    backend = _ALIASES.get(backend, backend)
    dialect = SUPPORTED.get(backend)
    if dialect is not None and not driver:
        # The choice must not depend on which drivers are installed, nor on SQLAlchemy's default.
        driver = next(iter(dialect.drivers))
    if dialect is None or driver not in dialect.drivers:
        msg = f"{variable} names {url.drivername!r}{owner}, which is not supported. Use one of: {supported_text()}."
        raise SettingsError(msg, variable=variable)
    return _with_hosts(url.set(drivername=f"{backend}+{driver}"), dialect, variable, owner)


def _with_hosts(url: URL, dialect: type[Dialect], variable: str, owner: str) -> URL:
    """Split several hosts into separate query items, because SQLAlchemy finds the ports of ``a:1,b:2`` only there.

    Raises SettingsError if the driver accepts a single host only.
    """
    given = url.query.get("host", ())
    hosts = given.split(",") if isinstance(given, str) else given
    has_several, driver = len(hosts) > 1, url.get_driver_name()
    if dialect.is_server and (has_several or "target_session_attrs" in url.query):
        capable = [name for name in dialect.drivers if dialect(name).takes_several_hosts]
        if driver not in capable:
            msg = (
                f"{variable} names several hosts or target_session_attrs{owner}, but {driver} connects to a single "
                f"host. Use {' or '.join(capable)}, or the address of the primary."
            )
            raise SettingsError(msg, variable=variable)
    is_split = has_several and "port" not in url.query and all(map(_HOST.fullmatch, hosts))
    return url.update_query_dict({"host": hosts}) if is_split else url


def mask(url: URL) -> str:
    """Return a printable URL: without the password, and of the query only the hosts, because drivers accept secrets
    there too.
    """
    hosts = {key: url.query[key] for key in ("host", "port") if key in url.query}
    return url.set(query=hosts).render_as_string(hide_password=True)

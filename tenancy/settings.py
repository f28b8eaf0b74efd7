"""Read this package's environment variables. Only the command line and the test fixtures also read the environment.

The persistence module's variables (``SQLALCHEMY_URL`` and the pool's) configure the database; this module passes them
on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final, cast

from eventsourcing.utils import Environment
from sqlalchemy.engine import URL

from eventsourcing_sqlalchemy.dialects import dialect_for
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.settings import SettingsReader
from tenancy.errors import InvalidSlug
from tenancy.model.slugs import RESERVED, SlugRule, normalize

__all__ = ["VARIABLES", "TenancySettings"]

VARIABLES: Final[Mapping[str, str]] = {
    "TENANCY_APP": "the Tenancy object of the command line, as module:name",
    "TENANCY_CONTROL_URL": "the database of the registry; default: SQLALCHEMY_URL",
    "TENANCY_CONTROL_SCHEMA": "the registry's schema, or its table prefix; default: tenancy",
    "TENANCY_SCHEMA": "the schema of new tenants: a template with {tenant} and optionally {application}",
    "TENANCY_TABLE_PREFIX": "the table prefix of new tenants: a template as above",
    "TENANCY_SLUGS": "any (default), or dns: host name labels only",
    "TENANCY_RESERVED_SLUGS": "slugs that new tenants cannot have, by commas; default: the usual ones",
    "TENANCY_GRACE_DAYS": "days before a deleted tenant is due to be purged; default: 30",
    "TENANCY_MAX_APPLICATIONS": "maximum number of cached tenant applications per process; default: 1000",
    "TENANCY_MAX_OUTAGE": "seconds that a process works without the registry; default: 30",
    "TENANCY_MIGRATIONS": "the directory of the migrations of your own tables; default: none",
    "TENANCY_REQUIRES": "the revision that a tenant needs to be served; default: none",
    "TENANCY_QUOTAS": "a function that returns a tenant's quotas, as module:function; default: its metadata",
    "TENANCY_TENANT": "the id of the application's tenant; set by env() and by tenancy env",
}
"""Every variable of this package with its description."""

# Container platforms set these for a service called "tenancy".
_OF_PLATFORMS: Final = re.compile(
    r"TENANCY_(PORT(_.*)?|SERVICE_(HOST|PORT)(_.*)?|\d+_.*|[A-Z0-9_]*_(SERVICE_HOST|PORT))"
)

_CLOSE: Final = 0.8

# Words of TENANCY_RESERVED_SLUGS.
_DEFAULT: Final = "default"
_NONE: Final = "none"

_CENTURY: Final = 36_525
_MILLION: Final = 1_000_000
# PostgreSQL truncates longer names silently. Databases without schemas have no limit.
_MAX_BYTES: Final = 63

_PLACEHOLDER: Final = re.compile(r"\{(tenant|application)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenancySettings:
    """All settings of a fleet, checked. The URLs may hold secrets."""

    url: URL = field(repr=False)
    creator_topic: str | None
    control_url: URL = field(repr=False)
    control_creator_topic: str | None
    control_schema: str
    schema: str | None
    table_prefix: str
    slugs: SlugRule
    reserved_slugs: frozenset[str]
    grace_days: float
    max_applications: int
    max_outage: float
    migrations: Path | None
    """The directory of the migrations of users' tables."""
    quotas_topic: str | None
    """The function that returns a tenant's quotas."""
    environment: Mapping[str, str] = field(repr=False)
    """The variables that the settings were read from."""
    given: Mapping[str, str] = field(repr=False)
    """The variables that the code passed, without the process's environment."""

    @classmethod
    def read(cls, env: Mapping[str, str] | None = None) -> TenancySettings:
        """Read the settings; ``env`` takes precedence over the process's environment.

        Raises SettingsError, which names the variable and the accepted values, also for a misspelt variable and for an
        in-memory database.
        """
        environment = {**os.environ, **(env or {})}
        read = SettingsReader(Environment("", environment))
        _check_names(environment)
        url = _url(read, "SQLALCHEMY_URL")
        if url is None:
            msg = (
                "SQLALCHEMY_URL is not set. Set it, e.g. SQLALCHEMY_URL=sqlite:///fleet.db or postgresql://user@host/db"
            )
            raise SettingsError(msg, variable="SQLALCHEMY_URL")
        creator = read.text("SQLALCHEMY_CONNECTION_CREATOR_TOPIC")
        control_url = _url(read, "TENANCY_CONTROL_URL")
        migrations = read.text("TENANCY_MIGRATIONS")
        if migrations is None and (required := _requires(environment)):
            msg = f"{required} is set without TENANCY_MIGRATIONS, the directory that knows the revision. Set both."
            raise SettingsError(msg, variable=required)
        schema, prefix = _templates(read, has_schemas=_has_schemas(url))
        return cls(
            url=url,
            creator_topic=creator,
            control_url=control_url or url,
            control_creator_topic=creator if control_url is None else None,
            control_schema=_control_schema(read, has_schemas=_has_schemas(control_url or url)),
            schema=schema,
            table_prefix=prefix,
            slugs=cast("SlugRule", read.choice("TENANCY_SLUGS", ("any", "dns")) or "any"),
            reserved_slugs=_reserved_slugs(read),
            grace_days=read.number("TENANCY_GRACE_DAYS", float, 30.0, minimum=0, maximum=_CENTURY, unit="days"),
            max_applications=read.number("TENANCY_MAX_APPLICATIONS", int, 1000, minimum=1, maximum=_MILLION),
            max_outage=read.number("TENANCY_MAX_OUTAGE", float, 30.0, minimum=0, maximum=_MILLION),
            migrations=None if migrations is None else Path(migrations).absolute(),
            quotas_topic=read.text("TENANCY_QUOTAS"),
            environment=environment,
            given=dict(env or {}),
        )

    @property
    def registry_is_beside(self) -> bool:
        """Whether the registry is in the tenants' database, with the same connection settings."""
        return (self.control_url, self.control_creator_topic) == (self.url, self.creator_topic)

    @property
    def own_control_url(self) -> str:
        """The value for TENANCY_CONTROL_URL; empty when the registry is in the tenants' database."""
        return "" if self.registry_is_beside else self.control_url.render_as_string(hide_password=False)

    @property
    def control_has_schemas(self) -> bool:
        """Whether the registry has a schema instead of a table prefix."""
        return _has_schemas(self.control_url)


def _url(read: SettingsReader, variable: str) -> URL | None:
    url = None if read.text(variable) is None else read.url(variable)
    if url is not None and not dialect_for(url.get_backend_name(), url.get_driver_name()).outlives_connections(url):
        msg = (
            f"{variable} names an in-memory database, which other processes cannot see. "
            f"Use a file: {variable}=sqlite:///fleet.db"
        )
        raise SettingsError(msg, variable=variable)
    return url


def _requires(environment: Mapping[str, str]) -> str | None:
    """Return the variable that names a required revision, of all applications or of one."""
    return next((name for name, value in environment.items() if value and name.endswith("TENANCY_REQUIRES")), None)


def _has_schemas(url: URL) -> bool:
    return dialect_for(url.get_backend_name(), url.get_driver_name()).has_schemas


def _reserved_slugs(read: SettingsReader) -> frozenset[str]:
    variable = "TENANCY_RESERVED_SLUGS"
    words = [word.strip() for word in (read.text(variable) or _DEFAULT).split(",")]
    if words == [_NONE]:
        return frozenset()
    slugs: set[str] = set()
    for word in words:
        if word == _DEFAULT:
            slugs |= RESERVED
            continue
        try:
            slugs.add(normalize(word))
        except InvalidSlug as error:
            msg = f"{variable}: {error.message} Separate slugs by commas, as in {variable}=default,shop,blog"
            raise SettingsError(msg, variable=variable) from None
    return frozenset(slugs)


def _control_schema(read: SettingsReader, *, has_schemas: bool) -> str:
    variable = "TENANCY_CONTROL_SCHEMA"
    name = read.text(variable) or "tenancy"
    if "{" in name or "}" in name or "\0" in name or (has_schemas and not _can_be_schema(name)):
        msg = (
            f"{variable} is {name!r}. Use a schema name of at most {_MAX_BYTES} bytes, without braces, that does not "
            "begin with pg_."
        )
        raise SettingsError(msg, variable=variable)
    return name


def _can_be_schema(name: str) -> bool:
    return len(name.encode(errors="replace")) <= _MAX_BYTES and not name.startswith("pg_")


def _templates(read: SettingsReader, *, has_schemas: bool) -> tuple[str | None, str]:
    schema, prefix = read.text("TENANCY_SCHEMA"), read.text("TENANCY_TABLE_PREFIX")
    if schema is not None and not has_schemas:
        msg = "TENANCY_SCHEMA cannot be used: this database has no schemas. Set TENANCY_TABLE_PREFIX instead."
        raise SettingsError(msg, variable="TENANCY_SCHEMA")
    if schema is None and prefix is None:
        return ("{tenant}", "") if has_schemas else (None, "{tenant}_")
    for variable, template in (("TENANCY_SCHEMA", schema), ("TENANCY_TABLE_PREFIX", prefix)):
        rest = _PLACEHOLDER.sub("", template or "")
        if "{" in rest or "}" in rest:
            msg = f"{variable}={template!r}: the placeholders are {{tenant}} and {{application}}. Remove other braces."
            raise SettingsError(msg, variable=variable)
        if re.search(r"\{application\}[a-z0-9]*\{tenant\}", template or ""):
            msg = (
                f"{variable}={template!r}: one tenant's names could be a suffix of another's. Insert an underscore "
                "before {tenant}."
            )
            raise SettingsError(msg, variable=variable)
    if (schema or "").startswith("pg_"):
        msg = f"TENANCY_SCHEMA={schema!r}: schema names that begin with pg_ are reserved. Choose another name."
        raise SettingsError(msg, variable="TENANCY_SCHEMA")
    if "{tenant}" not in f"{schema}{prefix}":
        msg = "Without {tenant} in TENANCY_SCHEMA or TENANCY_TABLE_PREFIX, all tenants would share their tables."
        raise SettingsError(msg, variable="TENANCY_SCHEMA" if schema is not None else "TENANCY_TABLE_PREFIX")
    return schema, prefix or ""


def _check_names(environment: Mapping[str, str]) -> None:
    for name in environment:
        if name.startswith("TENANCY") and name not in VARIABLES and not _OF_PLATFORMS.fullmatch(name):
            close = get_close_matches(name, VARIABLES, n=1, cutoff=_CLOSE)
            if close:
                msg = f"{name} is set, but no such variable exists. Did you mean {close[0]}? Rename or unset it."
                raise SettingsError(msg, variable=name)

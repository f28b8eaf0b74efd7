"""Log records as JSON lines, and the tenant that each record belongs to.

A line says what has happened, where, and to which tenant. It contains no event, no value and no password: an error
appears as its class, its SQLSTATE, its code and its stack frames, never with its message.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tenancy import context
from tenancy.errors import TenancyClosed

if TYPE_CHECKING:
    from tenancy.tenancy import Tenancy

__all__ = ["FIELDS", "JSONFormatter", "TenantFilter", "fields_of", "masked", "tenant_fields"]

FIELDS: Final[Mapping[str, str]] = {
    "tenant_id": "id of the tenant",
    "tenant": "slug of the tenant",
    "follower": "name of the follower or projection",
    "leader": "name of the application that it follows",
    "notification_id": "the notification that was being processed",
    "reaction": "name of the reaction to lifecycle events",
    "number": "the number of the change in the tenant's history",
    "attempts": "how often it was tried",
    "activity": "name of the background activity",
    "owner": "name of the process in leases",
    "workers": "number of worker threads",
    "error": "class of an error",
    "code": "its stable code",
    "sqlstate": "the database's code for it",
    "frames": "its stack frames, innermost last",
    "stream": "`stdout` or `stderr`, for text that code has printed",
}
"""Fields that a record may carry, with their meaning."""

# Their messages have values of statements, or of errors, as arguments. The template says what has happened.
_OF_DRIVERS: Final = re.compile(r"(sqlalchemy|psycopg|psycopg2|psycopg_pool|pg8000|asyncpg|aiosqlite)(\.|$)")
_WARNING_OF_DRIVER: Final = re.compile(r"\bSA\w*Warning: .*|\bMovedIn20Warning: .*")
_SECRET: Final = re.compile(r"(://[^:/@\s]*):[^@\s]*@|([?&]password=)[^&\s]*")


def masked(text: str) -> str:
    """Return a text with the passwords in URLs masked."""
    return _SECRET.sub(lambda found: f"{found[1]}:***@" if found[1] else f"{found[2]}***", text)


class TenantFilter(logging.Filter):
    """Put the tenant on each record, as the attributes ``tenant_id`` and ``tenant``: its id and its slug, or None.

    Attach it to a handler, so that it sees the records of all loggers. The tenant is the one that a record names by an
    attribute ``tenant_id``, otherwise the current one of the context that logs. It reads memory only, and never raises.
    """

    def __init__(self, tenants: Tenancy) -> None:
        super().__init__()
        self._tenants = tenants

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: every record passes."""
        named = getattr(record, "tenant_id", None)
        found = tenant_fields(self._tenants) if named is None else _fields_by_id(self._tenants, named)
        record.tenant_id = found.get("tenant_id")
        record.tenant = found.get("tenant") or getattr(record, "tenant", None)
        return True


def tenant_fields(tenants: Tenancy) -> dict[str, str]:
    """Return the ``tenant_id`` and the slug ``tenant`` of this context's tenant; without one, an empty dict.

    Reads memory only, and never raises: for processors of other logging packages. The slug is missing while this
    process has not read the tenant.
    """
    tenant_id = context.find_id(tenants)
    return {} if tenant_id is None else _fields_by_id(tenants, tenant_id)


def _fields_by_id(tenants: Tenancy, tenant_id: object) -> dict[str, str]:
    slug = None
    if isinstance(tenant_id, (str, UUID)):  # a record of another logger may mean something else
        with suppress(TenancyClosed):
            slug = tenants.cached_slug(tenant_id)
    return {"tenant_id": str(tenant_id)} if slug is None else {"tenant_id": str(tenant_id), "tenant": slug}


class JSONFormatter(logging.Formatter):
    """A JSON object for each record, in one line of ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return json.dumps(fields_of(record), default=str)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what the log says of a record, by key."""
    fields: dict[str, Any] = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "event": getattr(record, "event", None) or ("python.warning" if record.name == "py.warnings" else "log"),
        "logger": record.name,
        "message": _message(record),
    }
    # None: a follower that failed before its first notification has no notification_id.
    fields |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
    if record.exc_info and record.exc_info[1] is not None:
        from eventsourcing_sqlalchemy.error_fields import error_fields  # noqa: PLC0415 (slow; not needed by --help)

        found = error_fields(record.exc_info[1])
        fields |= {name: value for name, value in found.items() if value is not None}
    return fields | _trace()


def _message(record: logging.LogRecord) -> str:
    if _OF_DRIVERS.match(record.name):
        return str(record.msg).partition("\n")[0]
    arguments = record.args
    if isinstance(arguments, tuple):
        arguments = tuple(map(_safe, arguments))
    elif isinstance(arguments, Mapping):
        arguments = {name: _safe(value) for name, value in arguments.items()}
    try:
        text = str(record.msg) % arguments if arguments else str(_safe(record.msg))
    except Exception:  # noqa: BLE001 (a record whose arguments do not fit must not print a traceback)
        text = str(record.msg)
    if record.name == "py.warnings":
        text = _WARNING_OF_DRIVER.sub(lambda found: found[0].partition(":")[0], text).partition("\n")[0]
    return masked(text)


def _safe(value: Any) -> Any:
    """Return a value of a record, and for an error its class, because its message may contain values."""
    if isinstance(value, BaseException):
        from eventsourcing_sqlalchemy.errors import describe  # noqa: PLC0415 (as above)

        return describe(value)
    return value


def _trace() -> dict[str, str]:
    """Return the ids of the current span, if this process uses OpenTelemetry."""
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is None:
        return {}
    span = opentelemetry.get_current_span().get_span_context()
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else {}

"""The log of a long-running process: one line per record, from every logger, on standard error."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["configure", "logger"]

logger: Final = logging.getLogger("tenancy.runner")

_FIELDS: Final = ("tenant_id", "follower", "leader", "notification_id", "attempts", "owner", "workers")


def configure(*, as_json: bool) -> None:
    """Log the whole process as lines of text or JSON, including warnings and uncaught errors of threads."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JSON() if as_json else _Text())
    logging.getLogger().addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread


def _log_end_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is SystemExit:  # a regular way to end a thread
        return
    name = "" if arguments.thread is None else arguments.thread.name
    error = None if arguments.exc_value is None else (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    logger.error("Thread %s ended with an error.", name, exc_info=error)


class _Text(logging.Formatter):
    """A line of text, followed by the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields_of(record)
        named = [f"{name}={value}" for name, value in fields.items() if name not in ("at", "level", "message")]
        return " ".join([fields["at"], fields["level"], fields["message"], *named]).replace("\n", " ")


class _JSON(logging.Formatter):
    """A JSON object with the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields_of(record), default=str)


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
    }
    # None: a follower that failed before its first notification has no notification_id.
    fields |= {name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None}
    if record.exc_info and record.exc_info[1] is not None:
        from eventsourcing_sqlalchemy.errors import describe, frames_of  # noqa: PLC0415 (slow; not needed by --help)

        # Not the error's message, which may contain values.
        fields |= {"error": describe(record.exc_info[1]), "frames": frames_of(record.exc_info[1])}
    return fields

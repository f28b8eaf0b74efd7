"""The log of a process that runs for long: one line for each record, from every logger, on the standard error."""

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
    """Write the log of the whole process as lines of text or of JSON, with what Python itself would write as prose:
    warnings, and errors that end a thread.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JSON() if as_json else _Text())
    logging.getLogger().addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread


def _log_end_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is SystemExit:  # a thread may end so
        return
    name = "" if arguments.thread is None else arguments.thread.name
    error = None if arguments.exc_value is None else (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    logger.error("The thread %s has ended.", name, exc_info=error)


class _Text(logging.Formatter):
    """A line of text, with the fields of a record behind it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields_of(record)
        named = [f"{name}={value}" for name, value in fields.items() if name not in ("at", "level", "message")]
        return " ".join([fields["at"], fields["level"], fields["message"], *named]).replace("\n", " ")


class _JSON(logging.Formatter):
    """An object with the fields of a record."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields_of(record), default=str)


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
    }
    # Of a follower that has failed before it had a notification, there is no number.
    fields |= {name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None}
    if record.exc_info and record.exc_info[1] is not None:
        from eventsourcing_sqlalchemy.errors import describe  # noqa: PLC0415 (slow, and --help needs no log)
        from tenancy.runner.failures import frames_of  # noqa: PLC0415 (as above)

        # Not what it says, which may contain values.
        fields |= {"error": describe(record.exc_info[1]), "frames": frames_of(record.exc_info[1])}
    return fields

"""The log of a long-running process: one line per record, from every logger, on standard error."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from tenancy.cli.printed_lines import PrintedLines
from tenancy.telemetry.logs import JSONFormatter, TenantFilter, fields_of

if TYPE_CHECKING:
    from tenancy import Tenancy

__all__ = ["add_tenants", "capture_output", "configure", "logger"]

logger: Final = logging.getLogger("tenancy.runner")

_UNNAMED: Final = ("at", "level", "message", "event", "logger")


def configure(*, as_json: bool) -> None:
    """Log the whole process as lines of text or JSON, including warnings and uncaught errors of threads."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if as_json else _Text())
    logging.getLogger().addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_unraisable
    if as_json:
        sys.excepthook = _log_end_of_process


def add_tenants(tenants: Tenancy) -> None:
    """Name the tenant in each record from now on."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(TenantFilter(tenants))


def capture_output() -> Callable[[], None]:
    """Write what code prints as records of the log; return a function that ends it.

    Errors of logging itself are not printed: their arguments may contain values.
    """
    before, raises = (sys.stdout, sys.stderr), logging.raiseExceptions
    logging.raiseExceptions = False
    sys.stdout = PrintedLines("stdout", logger, before[1])
    sys.stderr = PrintedLines("stderr", logger, before[1])

    def end() -> None:
        sys.stdout.close()
        sys.stderr.close()
        sys.stdout, sys.stderr = before
        logging.raiseExceptions = raises

    return end


def _log_end_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is SystemExit:  # a regular way to end a thread
        return
    name = "" if arguments.thread is None else arguments.thread.name
    extra = {"event": "thread.failed", **_fields(arguments.exc_value)}
    logger.error("Thread %s ended with an error.", name, extra=extra)


def _log_unraisable(arguments: sys.UnraisableHookArgs) -> None:
    extra = {"event": "finalizer.failed", **_fields(arguments.exc_value)}
    logger.error("An error in a finalizer was ignored.", extra=extra)


def _log_end_of_process(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    logger.critical("The process ends with an error.", extra={"event": "process.failed", **_fields(error)})


def _fields(error: BaseException | None) -> dict[str, Any]:
    from eventsourcing_sqlalchemy.error_fields import error_fields  # noqa: PLC0415 (slow; not needed by --help)

    return {} if error is None else error_fields(error)


class _Text(logging.Formatter):
    """A line of text, followed by the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record)
        named = [f"{name}={value}" for name, value in fields.items() if name not in _UNNAMED]
        return " ".join([fields["at"], fields["level"], fields["message"], *named]).replace("\n", " ")

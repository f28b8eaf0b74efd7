"""Error reports and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import typer

from tenancy.cli.output import json_of, printable
from tenancy.errors import PartlyDone, TenancyError, TenantUnavailable, TransitionRefused
from tenancy.telemetry.logs import masked

if TYPE_CHECKING:
    from eventsourcing.persistence import PersistenceError

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "UNREACHABLE",
    "USAGE",
    "CommandError",
    "ErrorReport",
    "UsageError",
    "masked",
    "report_of",
]

FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 5
UNREACHABLE: Final = 6
INTERRUPTED: Final = 130

EXIT_CODES: Final[Mapping[str, int]] = {
    "failed": FAILED,
    "database": FAILED,
    "no_registry": FAILED,
    "not_registered": FAILED,
    "not_confirmed": FAILED,
    "usage": USAGE,
    "settings": USAGE,
    "invalid_argument": USAGE,
    "invalid_slug": USAGE,
    "invalid_domain": USAGE,
    "not_executable": 126,
    "interrupted": INTERRUPTED,
    "not_found": 3,
    "job_not_found": 3,
    "domain_not_found": 3,
    "exists": 4,
    "domain_exists": 4,
    "refused": REFUSED,
    "job_ended": REFUSED,
    "job_not_ended": REFUSED,
    "quota_exceeded": REFUSED,
    "domain_not_verified": REFUSED,
    "unreachable": UNREACHABLE,
    "partly_done": 7,
}
"""Exit codes by error code. All errors of tenant status exit with 5."""

# Typer uses its own copy of click or the installed one, depending on its version.
UsageError: Final[Any] = typer.BadParameter.__mro__[1]
"""The exception that Typer raises for wrong arguments."""


class CommandError(Exception):
    """The command failed. For a command on several tenants, ``failures`` holds the error of each."""

    def __init__(
        self, message: str, *, remedy: str = "", code: str = "usage", failures: Iterable[Exception] = ()
    ) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.code = code
        self.failures = tuple(failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport:
    """An error as the command reports it."""

    code: str
    message: str
    exit_code: int
    remedy: str = ""
    tenant: str | None = None
    parts: tuple[ErrorReport, ...] = ()
    """The reports of single tenants, for a command on several."""

    def show(self, *, as_json: bool) -> None:
        """Write the report to standard error."""
        text = json_of({"error": self.shape()}) if as_json else "\n".join(self._lines())
        sys.stderr.write(f"{text}\n")

    def shape(self) -> dict[str, Any]:
        """Return the JSON shape."""
        shape: dict[str, Any] = {
            "code": self.code,
            "message": masked(self.message),
            "remedy": masked(self.remedy),
            "tenant": self.tenant,
        }
        if self.parts:
            shape["failures"] = [part.shape() for part in self.parts]
        return shape

    def _lines(self) -> Iterator[str]:
        yield f"error: {printable(masked(self.message))}"
        for part in self.parts:
            yield f"       {printable(masked(part.message))} {printable(masked(part.remedy))}".rstrip()
        if self.remedy:
            yield f"       {printable(masked(self.remedy))}"


def report_of(error: BaseException) -> ErrorReport | None:
    """Return the report of an error, or None for a bug, which deserves a traceback."""
    if isinstance(error, TenancyError):
        is_refused = isinstance(error, (TenantUnavailable, TransitionRefused))
        return ErrorReport(
            code=error.code,
            message=error.message,
            remedy=error.remedy,
            tenant=error.tenant,
            exit_code=REFUSED if is_refused else EXIT_CODES.get(error.code, FAILED),
            parts=_parts(error.failures.values()) if isinstance(error, PartlyDone) else (),
        )
    if isinstance(error, CommandError):
        return replace(_report(error.code, str(error), error.remedy), parts=_parts(error.failures))
    if isinstance(error, UsageError):
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        context = getattr(error, "ctx", None)
        text = text.replace(": Value error, ", ": ")  # added by Pydantic in some versions of Typer
        return _report("usage", text, f"See: {context.command_path if context else 'tenancy'} --help")
    return _report_of_library(error)


def _parts(errors: Iterable[Exception]) -> tuple[ErrorReport, ...]:
    return tuple(part for part in map(report_of, errors) if part is not None)


def _report_of_library(error: BaseException) -> ErrorReport | None:
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415 (slow; loaded by now)
    from eventsourcing.utils import TopicError  # noqa: PLC0415 (as above)

    from eventsourcing_sqlalchemy.errors import SettingsError  # noqa: PLC0415 (as above)

    if isinstance(error, SettingsError):
        return _report("settings", str(error))
    if isinstance(error, PersistenceError):
        return _report_of_database(error)
    if isinstance(error, OSError):  # for example a full disk
        return _report("failed", f"{error}.")
    if isinstance(error, TopicError):
        remedy = "Pass the code of the applications: --app module:name"
        return _report("not_registered", f"{error}.", remedy)
    return None


def _report_of_database(error: PersistenceError) -> ErrorReport:
    from eventsourcing.persistence import OperationalError  # noqa: PLC0415 (as above)

    from eventsourcing_sqlalchemy.errors import sqlstate  # noqa: PLC0415 (as above)
    from tenancy.registry.remedies import remedy_of  # noqa: PLC0415 (as above)

    remedy = remedy_of(error)
    # An error without SQLSTATE did not come from a server, so the server is unreachable.
    is_unreachable = isinstance(error, OperationalError) and (sqlstate(error) or "08").startswith(("08", "53", "57P"))
    return _report("unreachable" if is_unreachable or remedy else "database", str(error), remedy or "")


def _report(code: str, message: str, remedy: str = "") -> ErrorReport:
    return ErrorReport(code=code, message=message, remedy=remedy, exit_code=EXIT_CODES[code])

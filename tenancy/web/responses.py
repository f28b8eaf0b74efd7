"""What a client is told when a request cannot be served for its tenant: one body for each status, and nothing else.

No answer names a tenant, a slug, a reason or a slug that is close: whoever asks may be anybody.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from tenancy.errors import InvalidSlug, RegistryUnavailable, TenancyError, TenantNotFound, TenantUnavailable

__all__ = ["APPLICATION_ERRORS", "LOOKUP_ERRORS", "ErrorResponse", "error_response"]

_logger = logging.getLogger(__name__)


class ErrorResponse(NamedTuple):
    """An answer, in the order that Flask takes it from an error handler."""

    body: str
    status: int
    headers: Mapping[str, str]


def _refusal(status: int, code: str, message: str, **headers: str) -> ErrorResponse:
    body = json.dumps({"error": {"code": code, "message": message}})
    # A cache would go on saying so after the tenant has been created or resumed.
    standard = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store"}
    return ErrorResponse(body, status, {**standard, **headers})


_REFUSALS: Final[Mapping[type[TenancyError], ErrorResponse]] = {
    TenantNotFound: _refusal(404, "not_found", "There is nothing here."),
    InvalidSlug: _refusal(404, "not_found", "There is nothing here."),
    TenantUnavailable: _refusal(403, "unavailable", "This is not available now."),
    RegistryUnavailable: _refusal(
        503, "unreachable", "This cannot be answered now. Try again.", **{"retry-after": "1"}
    ),
}
LOOKUP_ERRORS: Final = tuple(_REFUSALS)
"""The errors that are answered when a tenant is looked up."""
APPLICATION_ERRORS: Final = (TenantUnavailable, RegistryUnavailable)
"""The errors that are answered when they come out of an application; others are mistakes in it."""


def error_response(error: TenancyError) -> ErrorResponse:
    """Return what to answer when a tenant cannot be served; raises ``error`` when it is about something else.

    Logs why the registry cannot be reached: the client is not told.
    """
    if isinstance(error, RegistryUnavailable):
        _logger.error("%s", error)
    for cls, answer in _REFUSALS.items():
        if isinstance(error, cls):
            return answer
    raise error

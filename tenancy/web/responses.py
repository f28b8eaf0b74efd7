"""Error responses: one body per status, and nothing more.

No response contains a tenant, a slug, a reason or a suggestion, because any client can send a request.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from eventsourcing_sqlalchemy.error_fields import error_fields
from tenancy.errors import (
    InvalidSlug,
    RegistryUnavailable,
    TenancyError,
    TenantNotFound,
    TenantOutdated,
    TenantUnavailable,
)
from tenancy.instruments import count_refusal

__all__ = ["APPLICATION_ERRORS", "LOOKUP_ERRORS", "ErrorResponse", "error_response"]

_logger = logging.getLogger(__name__)


class ErrorResponse(NamedTuple):
    """A response in the order that Flask accepts from an error handler."""

    body: str
    status: int
    headers: Mapping[str, str]

    def body_for(self, method: Any) -> bytes:
        """Return the body as bytes; it is empty for HEAD."""
        return b"" if method == "HEAD" else self.body.encode()


def _response(status: int, code: str, message: str, **headers: str) -> ErrorResponse:
    body = json.dumps({"error": {"code": code, "message": message}})
    # A cached response would outlive the creation or resumption of the tenant.
    standard = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store"}
    return ErrorResponse(body, status, {**standard, **headers})


_RESPONSES: Final[Mapping[type[TenancyError], ErrorResponse]] = {
    TenantNotFound: _response(404, "not_found", "Not found."),
    InvalidSlug: _response(404, "not_found", "Not found."),
    # Before its base class. A migration of one tenant rarely takes longer.
    TenantOutdated: _response(503, "outdated", "Service unavailable. Retry later.", **{"retry-after": "5"}),
    TenantUnavailable: _response(403, "unavailable", "Not available."),
    RegistryUnavailable: _response(503, "unreachable", "Service unavailable. Retry later.", **{"retry-after": "1"}),
}
LOOKUP_ERRORS: Final = tuple(_RESPONSES)
"""Errors that get a response when they are raised during the tenant lookup."""
APPLICATION_ERRORS: Final = (TenantUnavailable, RegistryUnavailable)
"""Errors that get a response when the application raises them. Any other error is a bug in the application."""


def error_response(error: TenancyError) -> ErrorResponse:
    """Return the response to an error; raises ``error`` when it has none.

    Logs why the registry is unreachable, because the response does not say so.
    """
    count_refusal(error.code, "request")
    if isinstance(error, RegistryUnavailable):
        message = error.message  # of this package: it contains no value
        _logger.error("%s", message, extra={"event": "registry.unreachable", **error_fields(error)})
    for cls, response in _RESPONSES.items():
        if isinstance(error, cls):
            return response
    raise error

"""What a client is told when a request cannot be served for its tenant: one body for each status, and nothing else.

No answer names a tenant, a slug, a reason or a slug that is close: whoever asks may be anybody.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from tenancy.errors import InvalidSlug, RegistryUnavailable, TenancyError, TenantNotFound, TenantUnavailable

__all__ = ["AT_THE_DOOR", "INSIDE", "Refusal", "refusal"]

_logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """An answer, in the order that Flask takes it from an error handler."""

    body: str
    status: int
    headers: Mapping[str, str]


def _refusal(status: int, code: str, message: str, **headers: str) -> Refusal:
    body = json.dumps({"error": {"code": code, "message": message}})
    # A cache would go on saying so after the tenant has been created or resumed.
    standard = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store"}
    return Refusal(body, status, {**standard, **headers})


_REFUSALS: Final[Mapping[type[TenancyError], Refusal]] = {
    TenantNotFound: _refusal(404, "not_found", "There is nothing here."),
    InvalidSlug: _refusal(404, "not_found", "There is nothing here."),
    TenantUnavailable: _refusal(403, "unavailable", "This is not available now."),
    RegistryUnavailable: _refusal(
        503, "unreachable", "This cannot be answered now. Try again.", **{"retry-after": "1"}
    ),
}
AT_THE_DOOR: Final = tuple(_REFUSALS)
"""The errors that are answered when a tenant is looked up."""
INSIDE: Final = (TenantUnavailable, RegistryUnavailable)
"""The errors that are answered when they come out of an application; others are mistakes in it."""


def refusal(error: TenancyError) -> Refusal:
    """Return what to answer when a tenant cannot be served; raises ``error`` when it is about something else.

    Logs why the registry cannot be reached: the client is not told.
    """
    if isinstance(error, RegistryUnavailable):
        _logger.error("%s", error)
    for cls, answer in _REFUSALS.items():
        if isinstance(error, cls):
            return answer
    raise error

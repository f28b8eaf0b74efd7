"""Error responses: one body per status, and nothing more.

No response contains a tenant, a slug, a reason or a suggestion, because any client can send a request. Programs get
``application/problem+json`` (RFC 9457) with a stable ``code``, browsers get HTML. Your own pages replace them by error.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from string import Template
from typing import Any, Final, NamedTuple

from eventsourcing_sqlalchemy.error_fields import error_fields
from tenancy.arguments import check_type, invalid
from tenancy.errors import (
    InvalidArgument,
    InvalidSlug,
    RegistryUnavailable,
    TenancyError,
    TenantNotFound,
    TenantOutdated,
    TenantUnavailable,
)
from tenancy.instruments import count_refusal
from tenancy.web.accept import prefers_html
from tenancy.web.resolvers import Request

__all__ = [
    "LOOKUP_ERRORS",
    "ErrorHandler",
    "ErrorPages",
    "ErrorResponse",
    "Responder",
    "error_response",
    "is_refusal",
    "redirect",
]

_logger = logging.getLogger(__name__)


class ErrorResponse(NamedTuple):
    """A response in the order that Flask accepts from an error handler."""

    body: str
    status: int
    headers: Mapping[str, str]

    def body_for(self, method: Any) -> bytes:
        """Return the body as bytes; it is empty for HEAD."""
        return b"" if method == "HEAD" else self.body.encode()


ErrorHandler = Callable[[TenancyError, Request], ErrorResponse | None]
"""Returns the response to an error, or None for the default one."""
ErrorPages = Mapping[type[TenancyError], str | ErrorHandler]
"""Your own responses by error class: an HTML template or a handler."""


class _Problem(NamedTuple):
    """The meaning of an error for a client."""

    status: int
    code: str
    detail: str
    retry_after: int | None = None

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase

    def to_json(self) -> ErrorResponse:
        problem = {"title": self.title, "status": self.status, "detail": self.detail, "code": self.code}
        return self.response(json.dumps(problem), "application/problem+json")

    def to_html(self, template: Template) -> ErrorResponse:
        values = {"title": self.title, "status": self.status, "detail": self.detail, "code": self.code}
        return self.response(template.safe_substitute(values), "text/html; charset=utf-8")

    def response(self, body: str, content_type: str) -> ErrorResponse:
        headers = {"content-type": content_type, "content-length": str(len(body.encode())), **_STANDARD}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return ErrorResponse(body, self.status, headers)


# A cached response would outlive the creation or resumption of the tenant.
_STANDARD: Final = {"cache-control": "no-store", "vary": "Accept"}
_NOT_FOUND: Final = _Problem(404, "not_found", "Not found.")
_PROBLEMS: Final[Mapping[type[TenancyError], _Problem]] = {
    TenantNotFound: _NOT_FOUND,
    InvalidSlug: _NOT_FOUND,
    # Before its base class. A migration of one tenant rarely takes longer.
    TenantOutdated: _Problem(503, "outdated", "Service unavailable. Retry later.", 5),
    TenantUnavailable: _Problem(403, "unavailable", "Not available."),
    RegistryUnavailable: _Problem(503, "unreachable", "Service unavailable. Retry later.", 1),
}
LOOKUP_ERRORS: Final = tuple(_PROBLEMS)
"""Errors that get a response when they are raised during the tenant lookup."""
_DETAILS: Final = {402: "A limit of the plan is reached.", 429: "Too many requests. Retry later."}

_PAGE: Final = Template(
    '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>$title</title></head>\n'
    "<body><h1>$title</h1><p>$detail</p></body>\n</html>\n"
)


def is_refusal(error: BaseException) -> bool:
    """Return whether an error that the application raises gets a response. Any other error is a bug in it."""
    if isinstance(error, (TenantUnavailable, RegistryUnavailable)):
        return True
    return isinstance(error, TenancyError) and error.http_status is not None


def _problem(error: TenancyError) -> _Problem:
    if error.http_status is not None:
        detail = _DETAILS.get(error.http_status, "Not available.")
        seconds = None if error.retry_after is None else max(1, math.ceil(error.retry_after))
        return _Problem(error.http_status, error.code, detail, seconds)
    for cls, problem in _PROBLEMS.items():
        if isinstance(error, cls):
            return problem
    raise error


def error_response(error: TenancyError, request: Request | None = None) -> ErrorResponse:
    """Return the response to an error, as the request accepts it; raises ``error`` when it has none.

    Logs why the registry is unreachable, because the response does not say so.
    """
    count_refusal(error.code, "request")
    problem = _problem(error)
    if isinstance(error, RegistryUnavailable):
        message = error.message  # of this package: it contains no value
        _logger.error("%s", message, extra={"event": "registry.unreachable", **error_fields(error)})
    if request is not None and prefers_html(request):
        return problem.to_html(_PAGE)
    return problem.to_json()


def redirect(url: str, status: int = 303) -> ErrorHandler:
    """Send browsers to another page, such as one about an unpaid invoice. Programs get the default response."""
    check_type("The URL", url, str, "a string: redirect('https://app.example.com/billing')")
    if not url or not url.isascii() or not url.isprintable() or " " in url:
        msg = f"{url!a} is not a URL."
        raise InvalidArgument(msg, remedy="Percent-encode it.")
    response = ErrorResponse("", status, {"location": url, "content-length": "0", **_STANDARD})

    def respond(_: TenancyError, request: Request) -> ErrorResponse | None:
        return response if prefers_html(request) else None

    return respond


class Responder:
    """Chooses the response to an error: your own page for its class or the nearest base class, or the default one.

    A text is a template of HTML for clients that prefer it; ``$status``, ``$title``, ``$detail`` and ``$code`` are
    replaced. A handler is called for all clients.
    """

    def __init__(self, errors: ErrorPages) -> None:
        check_type("errors", errors, Mapping, "pages by error class: errors={TenantSuspended: redirect('/billing')}")
        self._pages: dict[type, Template | ErrorHandler] = {}
        for cls, page in errors.items():
            if not (isinstance(cls, type) and issubclass(cls, TenancyError)):
                raise invalid("A key of errors", cls, "a class of tenancy.errors, such as TenantSuspended")
            if not (isinstance(page, str) or callable(page)):
                raise invalid(f"The page of {cls.__name__}", page, "an HTML template or a function")
            self._pages[cls] = Template(page) if isinstance(page, str) else page

    def respond(self, error: TenancyError, request: Request) -> ErrorResponse:
        """Return the response to an error; raises ``error`` when it has none."""
        default = error_response(error, request)
        page = next((self._pages[cls] for cls in type(error).__mro__ if cls in self._pages), None)
        if page is None:
            return default
        if isinstance(page, Template):
            return _problem(error).to_html(page) if prefers_html(request) else default
        own = page(error, request)
        if own is None:
            return default
        if not isinstance(own, ErrorResponse):
            msg = f"The handler of {type(error).__name__} returned {type(own).__name__}."
            raise InvalidArgument(msg, remedy="Return an ErrorResponse or None; a handler cannot be async.")
        return own

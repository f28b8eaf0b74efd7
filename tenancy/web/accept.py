"""Decide from a request's ``Accept`` header between HTML for people and JSON for programs."""

from __future__ import annotations

from typing import Final

from tenancy.web.resolvers import Request

__all__ = ["prefers_html"]

_HTML: Final = ("text/html", "application/xhtml+xml", "text/*")
_JSON: Final = ("application/problem+json", "application/json", "application/*")
_MAX_LENGTH: Final = 2000


def prefers_html(request: Request) -> bool:
    """Return whether a client prefers HTML to JSON, as browsers do. One that accepts both alike gets JSON."""
    ranges = _ranges(",".join(request.values("accept"))[:_MAX_LENGTH])
    html = max((ranges.get(each, 0.0) for each in _HTML), default=0.0)
    json = [ranges[each] for each in _JSON if each in ranges]
    if json:
        return html > max(json)
    # "text/html, */*" names HTML and nothing else.
    return html > 0 and html >= ranges.get("*/*", 0.0)


def _ranges(accept: str) -> dict[str, float]:
    """Return the quality of each media range; of one without a valid quality, 1."""
    found = {}
    for part in accept.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        if name:
            found[name] = next((_quality(each) for each in parameters if each.startswith("q=")), 1.0)
    return found


def _quality(parameter: str) -> float:
    try:
        value = float(parameter.removeprefix("q="))
    except ValueError:
        return 1.0
    return value if 0 <= value <= 1 else 1.0

"""Which clients get HTML."""

from __future__ import annotations

import pytest

from tenancy.web.accept import prefers_html
from tenancy.web.resolvers import Request

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def accepting(*values: str) -> Request:
    return Request(path="/", headers=[("accept", value) for value in values])


@pytest.mark.parametrize(
    "accept",
    [BROWSER, "text/html", "TEXT/HTML", "text/*", "text/html, */*", "text/html;level=1;q=0.5, application/json;q=0.4"],
)
def test_html(accept: str) -> None:
    assert prefers_html(accepting(accept))


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "",
        ",;,",
        "application/json",
        "application/json, text/html",
        "application/problem+json, text/html",
        "text/html;q=0",
        "text/html;q=0.5, */*",
        "text/html;q=nan, application/json",
        "text/plain",
        ";" * 100_000,
    ],
)
def test_json(accept: str) -> None:
    assert not prefers_html(accepting(accept))


def test_repeated_and_missing_headers() -> None:
    assert not prefers_html(accepting())
    assert prefers_html(accepting("image/png", "text/html"))
    assert not prefers_html(accepting("text/html", "application/json"))

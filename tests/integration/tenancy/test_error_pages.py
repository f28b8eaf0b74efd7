"""Your own responses to refusals, and the default ones by what the client accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tenancy import Tenancy
from tenancy.errors import (
    InvalidArgument,
    NoCurrentTenant,
    TenancyError,
    TenantArchived,
    TenantNotFound,
    TenantSuspended,
    TenantUnavailable,
)
from tenancy.web.resolvers import Request, by_path
from tenancy.web.responses import ErrorPages, ErrorResponse, redirect
from tests.support.web import Answer, Kind, Web

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class LimitReachedError(TenancyError):
    """An error of another part, which says itself how clients see it."""

    code = "limit_reached"

    def __init__(self, http_status: int, retry_after: float | None = None) -> None:
        super().__init__("Tenant 'acme' has reached its limit.", tenant="acme")
        self.http_status = http_status
        self.retry_after = retry_after


@pytest.fixture(params=["asgi", "wsgi"])
def serve(request: pytest.FixtureRequest, tenants: Tenancy) -> Callable[..., Web]:
    kind: Kind = request.param

    def serve(errors: ErrorPages | None = None, handler: Callable[..., str] | None = None) -> Web:
        tenants.create("acme", exist_ok=True)
        tenants.create("gone", exist_ok=True)
        tenants.suspend("gone")
        options: dict[str, Any] = {} if errors is None else {"errors": errors}
        return Web(kind, tenants, handler or (lambda *_: "served"), by_path("/t"), **options)

    return serve


def code_of(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    code: str = json.loads(answer.body)["code"]
    return code


def test_browsers_get_html_and_programs_a_problem(serve: Callable[..., Web]) -> None:
    web = serve()
    for path, status, code in (("/t/x/", 404, "not_found"), ("/t/gone/", 403, "unavailable")):
        page = web.get(path, headers=BROWSER)
        assert (page.status, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert page.body.startswith("<!doctype html>")
        assert "gone" not in page.body
        for accept in ({}, {"accept": "application/json"}, {"accept": "*/*"}):
            answer = web.get(path, headers=accept)
            assert (answer.status, code_of(answer)) == (status, code)
            assert answer.headers["vary"] == page.headers["vary"] == "Accept"
            assert answer.headers["cache-control"] == page.headers["cache-control"] == "no-store"
            assert int(answer.headers["content-length"]) == len(answer.body)


def test_a_template_is_for_browsers(serve: Callable[..., Web]) -> None:
    web = serve({TenantNotFound: "<title>$title</title> $status $code: $5 für $unknown"})
    page = web.get("/t/x/", headers=BROWSER)
    assert (page.status, page.body) == (404, "<title>Not Found</title> 404 not_found: $5 für $unknown")
    assert int(page.headers["content-length"]) == len(page.body.encode())
    assert code_of(web.get("/t/x/")) == "not_found"
    assert web.get("/t/x/", headers=BROWSER, method="HEAD").body == ""


def test_a_suspended_tenant_leads_to_the_billing_page(serve: Callable[..., Web], tenants: Tenancy) -> None:
    web = serve({TenantSuspended: redirect("https://app.example.com/billing?x=1")})
    answer = web.get("/t/gone/", headers=BROWSER)
    assert (answer.status, answer.headers["location"]) == (303, "https://app.example.com/billing?x=1")
    assert answer.headers["cache-control"] == "no-store"
    assert code_of(web.get("/t/gone/")) == "unavailable"
    assert web.get("/t/acme/", headers=BROWSER).body == "served"
    tenants.archive("gone")
    assert web.get("/t/gone/", headers=BROWSER).status == 403


def test_the_nearest_class_decides(serve: Callable[..., Web], tenants: Tenancy) -> None:
    web = serve({TenancyError: "any", TenantUnavailable: "unavailable", TenantArchived: "archived"})
    assert web.get("/t/gone/", headers=BROWSER).body == "unavailable"
    assert web.get("/t/x/", headers=BROWSER).body == "any"
    tenants.archive("gone")
    assert web.get("/t/gone/", headers=BROWSER).body == "archived"


def test_a_function_sees_the_error_and_the_request(serve: Callable[..., Web], tenants: Tenancy) -> None:
    def respond(error: TenancyError, request: Request) -> ErrorResponse | None:
        if request.path.endswith("/api"):
            return None
        return ErrorResponse(f"{error.tenant} at {request.path}", 402, {"content-type": "text/plain"})

    def suspend(*_: str) -> str:
        tenants.suspend("acme")
        return tenants.application(next(iter(tenants.applications.values()))).name

    web = serve({TenantSuspended: respond}, suspend)
    answer = web.get("/t/gone/x")
    assert (answer.status, answer.body) == (402, "gone at /t/gone/x")
    assert code_of(web.get("/t/gone/api")) == "unavailable"
    assert web.get("/t/acme/now").body == "acme at /t/acme/now"  # raised in the application


@pytest.mark.parametrize(("status", "retry_after", "header"), [(429, 2.1, "3"), (429, 0.0, "1"), (402, None, None)])
def test_an_error_with_a_status_is_answered_with_it(
    status: int, retry_after: float | None, header: str | None, serve: Callable[..., Web]
) -> None:
    def fail(*_: str) -> str:
        raise LimitReachedError(status, retry_after)

    answer = serve(handler=fail).get("/t/acme/")
    assert (answer.status, code_of(answer)) == (status, "limit_reached")
    assert answer.headers.get("retry-after") == header
    assert "acme" not in answer.body


def test_any_other_error_is_a_bug(serve: Callable[..., Web]) -> None:
    def fail(*_: str) -> str:
        raise NoCurrentTenant("x")

    with pytest.raises(NoCurrentTenant):
        serve({TenancyError: "page"}, fail).get("/t/acme/")


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ({ValueError: "page"}, "A key of errors is the class ValueError"),
        ({"TenantNotFound": "page"}, "A key of errors is of type str"),
        ({TenantNotFound: 5}, "The page of TenantNotFound is of type int"),
        ([TenantNotFound], "errors is of type list"),
    ],
)
def test_wrong_pages_are_refused(errors: Any, message: str, serve: Callable[..., Web]) -> None:
    with pytest.raises(InvalidArgument, match=message):
        serve(errors)


def test_a_wrong_response_is_refused(serve: Callable[..., Web]) -> None:
    web = serve({TenantNotFound: lambda *_: "page"})
    with pytest.raises(InvalidArgument, match="The handler of TenantNotFound returned str"):
        web.get("/t/x/")


@pytest.mark.parametrize("url", ["", "/a\r\nset-cookie: x", "/ü", "/a b"])
def test_a_malformed_redirect_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a URL"):
        redirect(url)

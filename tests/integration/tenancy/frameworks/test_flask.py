"""Flask: installation in one call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask, request, url_for

from tenancy import Tenancy
from tenancy.errors import NoCurrentTenant, TenantSuspended
from tenancy.frameworks.flask import install
from tenancy.web.resolvers import by_path
from tenancy.web.responses import redirect
from tests.samples.kennels import Kennel


@pytest.fixture
def app(tenants: Tenancy) -> Flask:
    tenants.create("acme").get(Kennel).adopt_house_dog("Fido")
    app = Flask(__name__)
    install(
        app,
        tenants=tenants,
        resolver=by_path("/t"),
        public=["/health", "/wrong"],
        errors={TenantSuspended: redirect("/billing")},
    )

    @app.get("/dog")
    def dog() -> str:
        return f"{tenants.application(Kennel).house_dog()} at {request.script_root}, {url_for('dog')}"

    @app.get("/suspend")
    def suspend() -> str:
        tenants.suspend(tenants.current)
        return tenants.application(Kennel).house_dog()

    @app.get("/stream")
    def stream() -> Iterator[str]:
        return (tenants.current.slug for _ in range(2))

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.get("/wrong")
    def wrong() -> str:
        return tenants.current.slug

    return app


def test_requests_run_in_the_scope_of_their_tenant(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/t/acme/dog").text == "Fido at /t/acme, /t/acme/dog"
    assert client.get("/t/acme/stream").text == "acmeacme"
    assert client.get("/health").text == "ok"
    assert client.get("/t/unknown/dog").status_code == 404


def test_errors_of_views_are_refusals(app: Flask, tenants: Tenancy) -> None:
    client = app.test_client()
    answer = client.get("/t/acme/suspend")
    assert (answer.status_code, answer.get_json(force=True)["code"]) == (403, "unavailable")
    assert answer.headers["content-type"] == "application/problem+json"
    tenants.resume("acme")
    answer = client.get("/t/acme/suspend", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/billing")
    assert client.get("/t/acme/suspend", headers={"accept": "text/html"}).status_code == 303  # before the view


def test_other_errors_remain_bugs(app: Flask) -> None:
    assert app.test_client().get("/wrong").status_code == 500
    app.testing = True
    with pytest.raises(NoCurrentTenant):
        app.test_client().get("/wrong")

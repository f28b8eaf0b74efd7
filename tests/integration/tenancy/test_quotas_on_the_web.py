"""HTTP responses to used-up quotas."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tenancy import Tenancy
from tenancy.errors import QuotaExceeded
from tenancy.web.resolvers import by_path
from tenancy.web.responses import redirect
from tests.samples.kennels import Kennel
from tests.support.web import Kind, Web


@pytest.fixture(params=["asgi", "wsgi"])
def serve(request: pytest.FixtureRequest, tenants: Tenancy) -> Callable[..., Web]:
    kind: Kind = request.param

    def register(_root: str, _path: str) -> str:
        tenants.application(Kennel).register("Fido")
        return "registered"

    return lambda **options: Web(kind, tenants, register, by_path("/t"), **options)


def test_total(serve: Callable[..., Web], tenants: Tenancy) -> None:
    tenants.create("acme", metadata={"quotas": {"events": 1}})
    web = serve()
    assert web.get("/t/acme/").body == "registered"
    answer = web.get("/t/acme/")
    assert (answer.status, json.loads(answer.body)["code"]) == (402, "quota_exceeded")
    assert "retry-after" not in answer.headers
    assert "acme" not in answer.body


def test_rate(serve: Callable[..., Web], tenants: Tenancy) -> None:
    tenants.create("acme", metadata={"quotas": {"events_per_second": 0.01}})
    web = serve()
    web.get("/t/acme/")
    answer = web.get("/t/acme/")
    assert (answer.status, json.loads(answer.body)["code"]) == (429, "quota_exceeded")
    assert 90 < int(answer.headers["retry-after"]) <= 100


def test_page_of_your_own(serve: Callable[..., Web], tenants: Tenancy) -> None:
    tenants.create("acme", metadata={"quotas": {"events": 0}})
    web = serve(errors={QuotaExceeded: redirect("https://app.example.com/upgrade")})
    answer = web.get("/t/acme/", headers={"accept": "text/html"})
    assert (answer.status, answer.headers["location"]) == (303, "https://app.example.com/upgrade")

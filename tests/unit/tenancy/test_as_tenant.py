"""Test clients of web frameworks send their requests to a tenant."""

from __future__ import annotations

from typing import Any

import django.conf
import httpx
import pytest
from flask import Flask, request

from tenancy.errors import InvalidArgument
from tenancy.testing.clients import as_tenant


def test_httpx() -> None:
    seen: list[tuple[str, str | None]] = []

    def answer(sent: httpx.Request) -> httpx.Response:
        seen.append((sent.headers["host"], sent.headers.get("x-tenant")))
        return httpx.Response(200)

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://service") as client:
        with as_tenant(client, "acme", host="{slug}.example.com") as same:
            assert same is client
            client.get("/")
            with as_tenant(client, "globex", host="{slug}.example.com"):
                client.get("/")
        with as_tenant(client, "acme", header="X-Tenant"):
            client.get("/")
        client.get("/")
    assert seen == [
        ("acme.example.com", None),
        ("globex.example.com", None),
        ("service", "acme"),
        ("service", None),
    ]


def test_flask() -> None:
    app = Flask(__name__)

    @app.get("/")
    def show() -> str:
        return f"{request.host} {request.headers.get('X-Tenant')}"

    client = app.test_client()
    with as_tenant(client, "acme", host="{slug}.example.com"):
        assert client.get("/").text == "acme.example.com None"
    with as_tenant(client, "acme", header="X-Tenant"):
        assert client.get("/").text == "localhost acme"
    assert client.get("/").text == "localhost None"


def test_django() -> None:
    if not django.conf.settings.configured:
        django.conf.settings.configure()
    from django.test import RequestFactory  # noqa: PLC0415 (after the configuration)

    factory: Any = RequestFactory()
    with as_tenant(factory, "acme", header="X-Tenant"):
        assert factory.get("/").headers["X-Tenant"] == "acme"
    assert "X-Tenant" not in factory.get("/").headers


def test_misuse_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="of type object is not known"), as_tenant(object(), "a", header="X"):
        pass
    with httpx.Client() as client, pytest.raises(InvalidArgument, match="Pass one of them"), as_tenant(client, "a"):
        pass

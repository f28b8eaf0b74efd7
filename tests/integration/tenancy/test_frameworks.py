"""The middleware under FastAPI and Flask, which handle exceptions and paths in their own ways."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse
from flask import Flask, url_for

from tenancy import Tenancy
from tenancy.errors import TenantUnavailable
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import by_path
from tenancy.web.responses import error_response
from tenancy.web.wsgi import WSGIMiddleware
from tests.samples.kennels import Kennel
from tests.support.web import App, call


@pytest.fixture
def fastapi_app(tenants: Tenancy) -> FastAPI:
    app = FastAPI(default_response_class=PlainTextResponse)

    @app.get("/suspend")
    def suspend() -> str:
        tenants.suspend("acme")
        return str(tenants.application(Kennel))

    @app.get("/url")
    def url(request: Request) -> str:
        return request.url_for("url").path

    @app.websocket("/talk")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(tenants.current.slug)
        tenants.suspend("acme")
        tenants.application(Kennel)

    return app


@pytest.fixture
def served_app(fastapi_app: FastAPI, tenants: Tenancy) -> FastAPI:
    tenants.create("acme")
    fastapi_app.add_middleware(ASGIMiddleware, tenants=tenants, resolver=by_path("/t"))
    return fastapi_app


def get(app: App, path: str) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(main())


def test_fastapi_refuses_a_tenant_suspended_meanwhile(served_app: App) -> None:
    assert get(served_app, "/t/acme/suspend").status_code == 403


def test_fastapi_builds_urls_of_the_tenant(served_app: App) -> None:
    assert get(served_app, "/t/acme/url").text == "/t/acme/url"


def test_a_websocket_of_fastapi_is_closed_when_its_tenant_is_suspended(served_app: App) -> None:
    accepted, said, closed = call(served_app, "websocket", "/t/acme/talk", query_string=b"")
    assert accepted["type"] == "websocket.accept"
    assert said["text"] == "acme"
    assert closed["code"] == 4403


def test_middleware_around_fastapi_does_not_see_errors_answered_inside(fastapi_app: FastAPI, tenants: Tenancy) -> None:
    """As the page says. If this fails, the page can be simplified."""
    tenants.create("acme")
    app = ASGIMiddleware(fastapi_app, tenants=tenants, resolver=by_path("/t"))
    assert get(app, "/t/acme/suspend").status_code == 500


@pytest.mark.parametrize(("is_registered", "status"), [(True, 403), (False, 500)])
def test_flask_refuses_a_tenant_suspended_meanwhile(is_registered: bool, status: int, tenants: Tenancy) -> None:
    tenants.create("acme")
    app = Flask(__name__)
    app.wsgi_app = WSGIMiddleware(app.wsgi_app, tenants=tenants, resolver=by_path("/t"))  # type: ignore[method-assign]
    if is_registered:
        app.register_error_handler(TenantUnavailable, error_response)

    @app.get("/suspend")
    def suspend() -> str:
        tenants.suspend("acme")
        return str(tenants.application(Kennel))

    @app.get("/url")
    def url() -> str:
        return url_for("url")

    client = app.test_client()
    assert client.get("/t/acme/url").text == "/t/acme/url"
    assert client.get("/t/acme/suspend").status_code == status

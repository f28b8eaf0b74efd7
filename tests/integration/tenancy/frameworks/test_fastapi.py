"""FastAPI: installation in one call, and typed dependencies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, StreamingResponse

from tenancy import Tenancy
from tenancy.errors import InvalidArgument, NoCurrentTenant, TenantSuspended
from tenancy.frameworks.fastapi import CurrentTenant, TenantApplication, install
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import by_path
from tenancy.web.responses import redirect
from tests.samples.kennels import Kennel
from tests.support.web import call

ORIGIN = {"origin": "https://spa.example"}


def get(app: FastAPI, path: str, **headers: str) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(main())


def names(kennel: TenantApplication[Kennel]) -> str:
    """A dependency of the user's own, which needs another one."""
    return kennel.house_dog()


@pytest.fixture
def app(tenants: Tenancy) -> FastAPI:
    for slug, name in (("acme", "Fido"), ('Ünï-cödé "x"', "Rex")):
        tenants.create(slug).get(Kennel).adopt_house_dog(name)
    app = FastAPI(default_response_class=PlainTextResponse)

    @app.get("/tenant")
    async def tenant(tenant: CurrentTenant) -> str:
        return tenant.slug

    @app.get("/dog")
    def dog(
        kennel: TenantApplication[Kennel], again: TenantApplication[Kennel], name: Annotated[str, Depends(names)]
    ) -> str:
        assert kennel is again is tenants.application(Kennel)
        return name

    @app.get("/suspend")
    def suspend(tenant: CurrentTenant, kennel: TenantApplication[Kennel]) -> str:
        tenants.suspend(tenant)
        return kennel.house_dog()

    @app.get("/stream")
    def stream() -> StreamingResponse:
        def lines() -> Iterator[str]:
            for _ in range(2):
                yield f"{tenants.current.slug}\n"

        return StreamingResponse(lines())

    @app.websocket("/talk")
    async def talk(websocket: WebSocket, tenant: CurrentTenant, kennel: TenantApplication[Kennel]) -> None:
        await websocket.accept()
        await websocket.send_text(f"{tenant.slug}: {await asyncio.to_thread(kennel.house_dog)}")
        await asyncio.to_thread(tenants.suspend, tenant)
        await asyncio.to_thread(kennel.house_dog)

    return app


def test_dependencies_get_the_tenant_and_its_application(app: FastAPI, tenants: Tenancy) -> None:
    install(app, tenants=tenants, resolver=by_path("/t"))
    for slug, dog in (("acme", "Fido"), ('ünï-cödé "x"', "Rex")):
        assert get(app, f"/t/{slug}/tenant").text == slug
        assert get(app, f"/t/{slug}/dog").text == dog
        assert get(app, f"/t/{slug}/stream").text == f"{slug}\n" * 2
    assert get(app, "/t/unknown/tenant").status_code == 404


def test_dependencies_do_not_block_the_event_loop(
    app: FastAPI, tenants: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(app, tenants=tenants, resolver=by_path("/t"))
    threads: list[int] = []
    refresh = tenants.fleet.registry_cache.refresh

    def recorded() -> None:
        threads.append(threading.get_ident())
        refresh()

    monkeypatch.setattr(tenants.fleet.registry_cache, "refresh", recorded)
    assert get(app, "/t/acme/tenant").text == "acme"
    assert threads
    assert threading.get_ident() not in threads  # asyncio.run() is in this one


@pytest.mark.parametrize("is_cors_first", [True, False])
def test_the_order_of_middleware_makes_no_difference_to_errors_of_endpoints(
    is_cors_first: bool, app: FastAPI, tenants: Tenancy
) -> None:
    def add_cors() -> None:
        app.add_middleware(CORSMiddleware, allow_origins=["*"])

    if is_cors_first:
        add_cors()
    install(app, tenants=tenants, resolver=by_path("/t"), errors={TenantSuspended: redirect("/billing")})
    if not is_cors_first:
        add_cors()
    answer = get(app, "/t/acme/suspend", **ORIGIN)
    assert (answer.status_code, answer.json()["code"]) == (403, "unavailable")
    assert answer.headers["access-control-allow-origin"] == "*"
    tenants.resume("acme")
    answer = get(app, "/t/acme/suspend", accept="text/html")
    assert (answer.status_code, answer.headers["location"]) == (303, "/billing")


def test_a_websocket_is_closed_when_its_tenant_is_suspended(app: FastAPI, tenants: Tenancy) -> None:
    install(app, tenants=tenants, resolver=by_path("/t"))
    accepted, said, closed = call(app, "websocket", "/t/acme/talk", query_string=b"")
    assert (accepted["type"], said["text"], closed["code"]) == ("websocket.accept", "acme: Fido", 4403)


def test_other_errors_remain_bugs(app: FastAPI, tenants: Tenancy) -> None:
    install(app, tenants=tenants, resolver=by_path("/t"), public=["/tenant"])
    with pytest.raises(NoCurrentTenant, match="There is no current tenant"):
        get(app, "/tenant")


def test_without_installation_the_remedy_is_named(app: FastAPI) -> None:
    with pytest.raises(NoCurrentTenant, match=r"Call tenancy\.frameworks\.fastapi\.install\(app, \.\.\.\)"):
        get(app, "/tenant")


def test_dependencies_work_under_the_middleware_alone(app: FastAPI, tenants: Tenancy) -> None:
    app.add_middleware(ASGIMiddleware, tenants=tenants, resolver=by_path("/t"))
    assert get(app, "/t/acme/dog").text == "Fido"


def test_wrong_classes_are_refused() -> None:
    subscriptable: Any = TenantApplication
    with pytest.raises(InvalidArgument, match=r"Pass its class: TenantApplication\[Kennels\]"):
        subscriptable[int]

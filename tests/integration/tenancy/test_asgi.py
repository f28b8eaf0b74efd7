"""ASGI only: the event loop, websockets, the lifespan and started responses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tenancy import Tenancy
from tenancy.errors import TenantSuspended
from tenancy.model.tenant import Tenant
from tenancy.registry import cache as cache_module
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import Found, by_domain, by_path
from tests.samples.kennels import Kennel
from tests.support.deadlines import DEADLINE_SECONDS, wait_until
from tests.support.web import App, Message, Receive, Scope, Send, call, run

HTTP_ANSWERS: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}


def behind(app: App, tenants: Tenancy) -> App:
    return ASGIMiddleware(app, tenants=tenants, resolver=by_path("/t"))


async def say_where(scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "said", "root_path": scope["root_path"], "path": scope["path"]})


def test_the_root_path_stays_in_the_path(tenants: Tenancy) -> None:
    tenants.create("acme")
    app = behind(say_where, tenants)
    expected = {"type": "said", "root_path": "/api/t/acme", "path": "/api/t/acme/orders"}
    assert call(app, "http", "/api/t/acme/orders", root_path="/api") == [expected]
    assert call(app, "http", "/api/t/acme/orders", root_path="/api/") == [expected]
    # A server whose path excludes the root path.
    assert call(app, "http", "/t/acme/orders", root_path="/api") == [expected]
    # The path is not below the root path: it only starts with the same letters.
    assert call(app, "http", "/t/acme/orders", root_path="/t/ac") == [
        {"type": "said", "root_path": "/t/ac/t/acme", "path": "/t/ac/t/acme/orders"}
    ]


def test_the_lifespan_is_passed_on_without_a_registry(tenants: Tenancy) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(await receive())

    assert call(behind(app, tenants), "lifespan", "") == [{"type": "lifespan.connect"}]


def test_a_started_response_is_not_replaced(tenants: Tenancy) -> None:
    tenants.create("acme")

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        tenants.suspend("acme")
        tenants.application(Kennel)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/t/acme", "headers": [], "method": "GET"}
    with pytest.raises(TenantSuspended):
        asyncio.run(behind(app, tenants)(scope, None, send))  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["http.response.start"]


@pytest.mark.parametrize("is_alone", [True, False])
def test_an_exception_group_is_refused_if_it_holds_only_a_refusal(is_alone: bool, tenants: Tenancy) -> None:
    tenants.create("acme")

    async def use() -> None:
        tenants.application(Kennel)

    async def fail() -> None:
        if not is_alone:
            raise OSError

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        tenants.suspend("acme")
        async with asyncio.TaskGroup() as outer:
            outer.create_task(fail())
            async with asyncio.TaskGroup() as inner:
                inner.create_task(use())

    if is_alone:
        assert call(behind(app, tenants), "http", "/t/acme/")[0]["status"] == 403
    else:
        with pytest.raises(ExceptionGroup):
            call(behind(app, tenants), "http", "/t/acme/")


# -- the event loop --


def test_the_event_loop_runs_during_a_registry_query(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants.create("acme")
    find = tenants.fleet.registry.find  # a slow registry
    may_answer = threading.Event()
    asked: list[Callable[[], object]] = []

    def find_slowly(slug: str) -> Tenant | None:
        asked[0]()
        assert may_answer.wait(DEADLINE_SECONDS)
        return find(slug)

    monkeypatch.setattr(tenants.fleet.registry, "find", find_slowly)

    async def main() -> list[Message]:
        is_asked = asyncio.Event()
        asked.append(partial(asyncio.get_running_loop().call_soon_threadsafe, is_asked.set))
        request = asyncio.create_task(run(behind(say_where, tenants), "http", "/t/acme/", root_path=""))
        await is_asked.wait()
        may_answer.set()  # not reached if the event loop is blocked
        return await request

    assert asyncio.run(main()) == [{"type": "said", "root_path": "/t/acme", "path": "/t/acme/"}]


def test_no_thread_is_needed_for_cached_tenants(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_QUERY_INTERVAL", DEADLINE_SECONDS)
    tenants.create("acme")
    hops: list[str] = []
    to_thread = asyncio.to_thread

    async def counted(function: Callable[..., Any], found: Found) -> Any:
        hops.append(found.slug)
        return await to_thread(function, found)

    monkeypatch.setattr(asyncio, "to_thread", counted)

    async def main() -> None:
        for slug in ("acme", "ACME", "acme", "unknown", "unknown", "acme"):
            await run(behind(say_where, tenants), "http", f"/t/{slug}/", root_path="")

    asyncio.run(main())
    assert hops == ["acme", "unknown"]


# -- websockets --


def serving(tenants: Tenancy, *before: str) -> App:
    """Return an application that sends messages, suspends its tenant, and then uses it."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for kind in before:
            await send({"type": kind})
        tenants.suspend("acme")
        tenants.application(Kennel)

    return app


def test_a_websocket_has_the_tenant(tenants: Tenancy) -> None:
    tenants.create("acme")

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "subprotocol": tenants.current.slug})

    assert call(behind(app, tenants), "websocket", "/t/acme/") == [{"type": "websocket.accept", "subprotocol": "acme"}]


def test_a_websocket_is_refused_with_a_code(tenants: Tenancy) -> None:
    tenants.create("acme")
    app = behind(serving(tenants), tenants)
    assert call(app, "websocket", "/t/unknown/") == [{"type": "websocket.close", "code": 4404, "reason": ""}]
    assert call(app, "websocket", "/t/acme/") == [{"type": "websocket.close", "code": 4403, "reason": ""}]


def test_a_websocket_is_refused_with_a_response_if_the_server_supports_it(tenants: Tenancy) -> None:
    tenants.create("acme")
    app = behind(serving(tenants), tenants)
    unknown = call(app, "websocket", "/t/unknown/", **HTTP_ANSWERS)
    suspended = call(app, "websocket", "/t/acme/", **HTTP_ANSWERS)
    for sent, status in ((unknown, 404), (suspended, 403)):
        assert [message["type"] for message in sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert sent[0]["status"] == status
        assert b"code" in sent[1]["body"]


@pytest.mark.parametrize("before", [["websocket.accept"], ["websocket.accept", "websocket.send"]])
def test_a_websocket_is_closed_when_its_tenant_becomes_unavailable(before: list[str], tenants: Tenancy) -> None:
    tenants.create("acme")
    sent = call(behind(serving(tenants, *before), tenants), "websocket", "/t/acme/", **HTTP_ANSWERS)
    assert sent[len(before) :] == [{"type": "websocket.close", "code": 4403, "reason": ""}]


@pytest.mark.parametrize("before", [["websocket.accept", "websocket.close"], ["websocket.http.response.start"]])
def test_a_websocket_that_is_closed_is_not_closed_again(before: list[str], tenants: Tenancy) -> None:
    tenants.create("acme")
    with pytest.raises(TenantSuspended):
        call(behind(serving(tenants, *before), tenants), "websocket", "/t/acme/", **HTTP_ANSWERS)


def test_domains_are_read_outside_the_event_loop(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants.create("acme")
    tenants.domains.verify("acme", "acme.example", tenants.domains.add("acme", "acme.example").token)
    reading_threads: list[int] = []
    registry = tenants.fleet.registry
    reading = registry.reading

    def recorded() -> Any:
        reading_threads.append(threading.get_ident())
        return reading()

    monkeypatch.setattr(registry, "reading", recorded)
    app = ASGIMiddleware(say_slug(tenants), tenants=tenants, resolver=by_domain())

    async def main() -> None:
        for host in (b"acme.example", b"x.example", b"acme.example", b"y.example"):
            await run(app, "http", "/", headers=[(b"host", host)])
            await run(app, "websocket", "/", headers=[(b"host", host)])

    tenants.fleet.registry_cache.start()  # empty, as in a new process
    asyncio.run(main())
    assert reading_threads
    assert threading.get_ident() not in reading_threads
    before = len(reading_threads)

    def is_from_memory() -> bool:
        asyncio.run(main())
        return len(reading_threads) == before

    wait_until(is_from_memory, "answers from memory")


def say_slug(tenants: Tenancy) -> App:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "said", "slug": tenants.current.slug})

    return app

"""Code that runs for a request has the request's tenant or none, and never that of another request.

Every way to run code is tested through the middleware, for many tenants concurrently.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse

from tenancy import Tenancy
from tenancy.errors import NoCurrentTenant
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.resolvers import by_path
from tests.samples.kennels import Kennel
from tests.support.deadlines import DEADLINE_SECONDS

TENANTS: Final = 20
NO_TENANT: Final = "no tenant"

Hop = Callable[[Callable[[], str]], Awaitable[str]]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenancy]:
    url = f"sqlite:///{tmp_path_factory.mktemp('fleet') / 'fleet.db'}"
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenancy:
        for tenant in tenancy.create_many(f"t-{number}" for number in range(TENANTS)):
            tenant.get(Kennel).adopt_house_dog(tenant.slug)
        yield tenancy


@pytest.fixture
def owner(tenants: Tenancy) -> Callable[[], str]:
    """A function that reads the current tenant's house dog."""

    def owner() -> str:
        try:
            return tenants.application(Kennel).house_dog()
        except NoCurrentTenant:
            return NO_TENANT

    return owner


# -- ways to run code for a request --


async def here(owner: Callable[[], str]) -> str:
    return owner()


async def in_a_task(owner: Callable[[], str]) -> str:
    return await asyncio.create_task(here(owner))


async def in_a_task_group(owner: Callable[[], str]) -> str:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(here(owner)) for _ in range(3)]
    return "".join({task.result() for task in tasks})


async def after_others_have_run(owner: Callable[[], str]) -> str:
    for _ in range(5):
        await asyncio.sleep(0)
    return owner()


async def in_a_callback(owner: Callable[[], str]) -> str:
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    loop.call_soon(lambda: answer.set_result(owner()))
    return str(await answer)


async def by_to_thread(owner: Callable[[], str]) -> str:
    return await asyncio.to_thread(owner)


async def by_to_thread_in_tasks(owner: Callable[[], str]) -> str:
    return "".join(set(await asyncio.gather(*[asyncio.to_thread(owner) for _ in range(3)])))


async def in_an_executor_with_the_context(owner: Callable[[], str]) -> str:
    return await asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, owner)


async def in_an_executor(owner: Callable[[], str]) -> str:
    return await asyncio.get_running_loop().run_in_executor(None, owner)


async def in_a_pool(owner: Callable[[], str]) -> str:
    with ThreadPoolExecutor(1) as threads:
        return await asyncio.wrap_future(threads.submit(owner))


async def in_a_thread(owner: Callable[[], str]) -> str:
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(owner()))
    thread.start()
    await asyncio.to_thread(thread.join)
    return answers[0]


FOLLOWED: Final = [
    here,
    in_a_task,
    in_a_task_group,
    after_others_have_run,
    in_a_callback,
    by_to_thread,
    by_to_thread_in_tasks,
    in_an_executor_with_the_context,
]
NOT_FOLLOWED: Final = [in_an_executor, in_a_pool, in_a_thread]


def behind(tenants: Tenancy, app: FastAPI) -> ASGIMiddleware:
    return ASGIMiddleware(app, tenants=tenants, resolver=by_path("/t"), public=["/"])


async def ask_for_all(app: ASGIMiddleware, rounds: int = 2) -> list[str]:
    """Send concurrent requests for all tenants; return the responses in the order of the tenants."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=DEADLINE_SECONDS) as client:
        requests = [client.get(f"/t/t-{number}/") for _ in range(rounds) for number in range(TENANTS)]
        return [response.text for response in await asyncio.gather(*requests)]


def expected(rounds: int = 2) -> list[str]:
    return [f"t-{number}" for _ in range(rounds) for number in range(TENANTS)]


@pytest.mark.parametrize("hop", FOLLOWED)
def test_the_tenant_follows(hop: Hop, tenants: Tenancy, owner: Callable[[], str]) -> None:
    app = FastAPI(default_response_class=PlainTextResponse)

    @app.get("/")
    async def endpoint() -> str:
        return await hop(owner)

    assert asyncio.run(ask_for_all(behind(tenants, app))) == expected()


@pytest.mark.parametrize("hop", NOT_FOLLOWED)
def test_no_tenant_where_the_context_is_not_inherited(hop: Hop, tenants: Tenancy, owner: Callable[[], str]) -> None:
    app = FastAPI(default_response_class=PlainTextResponse)

    @app.get("/")
    async def endpoint() -> str:
        # Threads that had a tenant before are reused.
        assert await asyncio.to_thread(owner) != NO_TENANT
        return await hop(owner)

    assert set(asyncio.run(ask_for_all(behind(tenants, app)))) == {NO_TENANT}


def test_the_tenant_follows_into_a_sync_endpoint(tenants: Tenancy, owner: Callable[[], str]) -> None:
    app = FastAPI(default_response_class=PlainTextResponse)
    app.get("/")(owner)
    assert asyncio.run(ask_for_all(behind(tenants, app))) == expected()


def test_the_tenant_follows_into_a_stream(tenants: Tenancy, owner: Callable[[], str]) -> None:
    app = FastAPI()

    @app.get("/")
    def endpoint() -> StreamingResponse:
        return StreamingResponse(owner() for _ in range(3))

    assert asyncio.run(ask_for_all(behind(tenants, app), 1)) == [name * 3 for name in expected(1)]


def test_the_tenant_follows_into_an_async_stream(tenants: Tenancy, owner: Callable[[], str]) -> None:
    app = FastAPI()

    async def stream() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield await asyncio.to_thread(owner)

    @app.get("/")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(stream())

    assert asyncio.run(ask_for_all(behind(tenants, app), 1)) == [name * 3 for name in expected(1)]


@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_the_tenant_follows_into_background_tasks(
    is_asynchronous: bool, tenants: Tenancy, owner: Callable[[], str]
) -> None:
    app = FastAPI(default_response_class=PlainTextResponse)
    seen: list[tuple[str, str]] = []

    def note(slug: str) -> None:
        seen.append((slug, owner()))

    async def note_later(slug: str) -> None:
        await asyncio.to_thread(note, slug)

    @app.get("/")
    def endpoint(background: BackgroundTasks) -> str:
        background.add_task(note_later if is_asynchronous else note, owner())
        return owner()

    assert asyncio.run(ask_for_all(behind(tenants, app), 1)) == expected(1)
    assert sorted(seen) == sorted((name, name) for name in expected(1))


def test_a_task_that_outlives_its_request_keeps_the_tenant(tenants: Tenancy, owner: Callable[[], str]) -> None:
    app = FastAPI(default_response_class=PlainTextResponse)
    tasks: list[asyncio.Task[str]] = []

    async def main() -> list[str]:
        are_answered = asyncio.Event()

        async def later() -> str:
            await are_answered.wait()
            return await asyncio.to_thread(owner)

        @app.get("/")
        async def endpoint() -> str:
            tasks.append(asyncio.create_task(later(), name=await asyncio.to_thread(owner)))
            return tasks[-1].get_name()

        assert await ask_for_all(behind(tenants, app), 1) == expected(1)
        are_answered.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [task.get_name() for task in tasks]
    assert len(tasks) == TENANTS


def test_a_cancelled_request_leaves_no_tenant(tenants: Tenancy, owner: Callable[[], str]) -> None:
    app = FastAPI()

    async def main() -> str:
        is_asked = asyncio.Event()

        @app.get("/")
        async def endpoint() -> None:
            is_asked.set()
            await asyncio.Event().wait()

        async def cancelled() -> str:
            request = asyncio.ensure_future(ask_for_all(behind(tenants, app), 1))
            await is_asked.wait()
            request.cancel()
            await asyncio.wait([request])
            return owner()

        return await cancelled()

    assert asyncio.run(main()) == NO_TENANT

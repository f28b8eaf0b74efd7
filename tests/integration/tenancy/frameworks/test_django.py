"""A Django project behind its WSGI and ASGI handlers and the test client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import django
import httpx
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client
from django.urls import path, reverse

from tenancy import Tenancy
from tenancy.errors import NoCurrentTenant, TenantSuspended
from tenancy.frameworks.django import tenant_middleware
from tenancy.web.resolvers import by_domain, by_path, first
from tenancy.web.responses import redirect
from tests.samples.kennels import Kennel
from tests.support.django_settings import unconfigured_django


class Scene:
    """The fleet. Django imports middleware and views by name, so this is module-wide."""

    tenants: Tenancy


def middleware(get_response: Callable[..., Any]) -> Any:
    make = tenant_middleware(
        tenants=Scene.tenants,
        resolver=first(by_path("/t"), by_domain()),
        public=["/health/"],
        health="/probes",
        errors={TenantSuspended: redirect("/billing")},
    )
    return make(get_response)


middleware.sync_capable = middleware.async_capable = True  # type: ignore[attr-defined]


def sync_only(get_response: Callable[..., Any]) -> Any:
    """A middleware of another package, which needs the tenant."""

    def call(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        if request.tenant is not None:
            response["x-tenant-id"] = str(Scene.tenants.current.id)
        return response

    return call


def dog(request: HttpRequest) -> HttpResponse:
    kennel = Scene.tenants.application(Kennel)
    return HttpResponse(f"{kennel.house_dog()} at {reverse('dog')}, {request.tenant.slug}")


async def async_dog(_: HttpRequest) -> HttpResponse:
    return HttpResponse(await sync_to_async(lambda: Scene.tenants.application(Kennel).house_dog())())


def suspend(request: HttpRequest) -> HttpResponse:
    Scene.tenants.suspend(request.tenant)
    return HttpResponse(Scene.tenants.application(Kennel).house_dog())


def stream(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(Scene.tenants.current.slug for _ in range(2))


async def async_stream(_: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for _ in range(2):
            yield Scene.tenants.current.slug

    return StreamingHttpResponse(parts())


def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.tenant}")


def wrong(_: HttpRequest) -> HttpResponse:
    raise NoCurrentTenant("A bug.")


urlpatterns = [
    path("dog/", dog, name="dog"),
    path("async-dog/", async_dog),
    path("suspend/", suspend),
    path("stream/", stream),
    path("async-stream/", async_stream),
    path("health/", health),
    path("wrong/", wrong),
]


@pytest.fixture(scope="module", autouse=True)
def django_is_configured() -> Iterator[None]:
    own = f"{__name__}.middleware"
    with unconfigured_django():
        settings.configure(
            ROOT_URLCONF=__name__,
            ALLOWED_HOSTS=["*"],
            MIDDLEWARE=[own, f"{__name__}.sync_only", "django.middleware.common.CommonMiddleware"],
            LOGGING_CONFIG=None,
        )
        django.setup()
        yield


Get = Callable[..., httpx.Response]


@pytest.fixture(params=[WSGIHandler, ASGIHandler])
def get(request: pytest.FixtureRequest, tenants: Tenancy) -> Get:
    Scene.tenants = tenants
    for slug, name in (("acme", "Fido"), ("globex", "Rex")):
        tenants.create(slug).get(Kennel).adopt_house_dog(name)
    tenants.domains.verify("globex", "dogs.example", tenants.domains.add("globex", "dogs.example").token)
    handler = request.param()

    def get(path: str, host: str = "localhost", **headers: str) -> httpx.Response:
        if isinstance(handler, WSGIHandler):
            with httpx.Client(transport=httpx.WSGITransport(handler), base_url=f"http://{host}") as client:
                return client.get(path, headers=headers)

        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(handler)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(main())

    return get


def test_requests_run_in_the_scope_of_their_tenant(get: Get, tenants: Tenancy) -> None:
    answer = get("/t/acme/dog/")
    assert answer.text == "Fido at /t/acme/dog/, acme"
    assert answer.headers["x-tenant-id"] == str(tenants["acme"].id)
    assert get("/dog/", host="dogs.example").text == "Rex at /dog/, globex"
    assert get("/t/globex/async-dog/").text == "Rex"
    assert get("/health/").text == "None"
    assert get("/probes/live").json() == {"status": "ok"}
    assert get("/probes/ready").json()["databases"] == {"registry": "ok", "tenants": "ok"}
    for _ in range(2):  # nothing of the former request remains
        assert get("/t/unknown/dog/").status_code == 404
        assert reverse("dog") == "/dog/"


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_streams_are_consumed_in_the_scope(get: Get) -> None:
    assert get("/t/acme/stream/").text == "acmeacme"
    assert get("/t/globex/async-stream/").text == "globexglobex"


def test_errors_of_views_are_refusals(get: Get, tenants: Tenancy) -> None:
    answer = get("/t/acme/suspend/")
    assert (answer.status_code, answer.json()["code"]) == (403, "unavailable")
    assert answer.headers["content-type"] == "application/problem+json"
    tenants.resume("acme")
    for _ in ("in the view", "before it"):
        answer = get("/t/acme/suspend/", accept="text/html")
        assert (answer.status_code, answer.headers["location"]) == (303, "/billing")
    assert get("/dog/").json()["code"] == "not_found"


def test_other_errors_remain_bugs(get: Get) -> None:
    assert get("/t/acme/wrong/").status_code == 500


@pytest.mark.usefixtures("get")
def test_the_test_client_has_the_tenant() -> None:
    client = Client()
    assert client.get("/t/acme/dog/").content == b"Fido at /t/acme/dog/, acme"
    with pytest.raises(NoCurrentTenant):
        client.get("/t/acme/wrong/")

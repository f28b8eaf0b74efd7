"""One transaction for a Django view and for a Celery task, with the decorator that the documentation recommends.

Both frameworks are real: views behind Django's WSGI and ASGI handlers, tasks in a Celery worker. Each way succeeds for
Fido and fails for a cat, for which nothing must be committed.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

import httpx
import pytest
import sqlalchemy as sa
from asgiref.sync import sync_to_async
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path
from eventsourcing.persistence import ProgrammingError

from tests.samples.training_school.application import Dog, TrainingSchool
from tests.samples.training_school.invoices import Invoice, invoices
from tests.support.django_settings import unconfigured_django

P = ParamSpec("P")
R = TypeVar("R")

pytestmark = pytest.mark.parametrize("database_url", ["file", "psycopg2"], indirect=True)


class CatsAreRefusedError(Exception):
    """Raised by the user's code after it has recorded an event."""


class Scene:
    """The application under test, and the error of a view. Django's views are module-wide, so this is too."""

    school: TrainingSchool
    error: BaseException | None = None


def in_transaction(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with Scene.school.recorder.transaction():
            return function(*args, **kwargs)

    return call


def register(name: str) -> None:
    """Record a dog and the user's row in the open transaction."""
    with Scene.school.recorder.transaction() as session:
        session.add(Invoice(number=1))
        Scene.school.save(Dog(name))
    if name == "Cat":
        raise CatsAreRefusedError


@in_transaction
def _view(_: HttpRequest, name: str) -> HttpResponse:
    register(name)
    return HttpResponse(name)


def _responded(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    @wraps(view)
    def answer(request: HttpRequest, name: str) -> HttpResponse:
        try:
            return view(request, name)
        except CatsAreRefusedError:
            return HttpResponse(status=409)

    return answer


async def _async_view(_: HttpRequest, name: str) -> HttpResponse:
    try:
        with Scene.school.recorder.transaction():
            await sync_to_async(register)(name)
    except ProgrammingError as error:
        Scene.error = error
        return HttpResponse(status=500)
    return HttpResponse(name)


urlpatterns = [path("view/<name>", _responded(_view)), path("async/<name>", _async_view)]

CELERY: Final[Any] = Celery("school", broker="memory://", backend="cache+memory://")


register_in_task: Any = CELERY.task(in_transaction(register))


@pytest.fixture(scope="module", autouse=True)
def django_is_configured() -> Iterator[None]:
    with unconfigured_django():
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[])
        yield


@pytest.fixture
def school(database_url: str, engine: sa.Engine) -> Iterator[sa.Engine]:
    """The user's engine, with the application on the same database."""
    Scene.error = None
    with TrainingSchool({"PERSISTENCE_MODULE": "eventsourcing_sqlalchemy", "SQLALCHEMY_URL": database_url}) as school:
        Scene.school = school
        yield engine


def committed(engine: sa.Engine) -> tuple[list[str], list[int]]:
    return Scene.school.names(), invoices(engine)


@pytest.mark.parametrize("handler", [WSGIHandler, ASGIHandler])
def test_django_view(school: sa.Engine, handler: Callable[[], Any]) -> None:
    if handler is WSGIHandler:
        with httpx.Client(transport=httpx.WSGITransport(handler()), base_url="http://school") as client:
            codes = [client.get(f"/view/{name}").status_code for name in ("Cat", "Fido")]
    else:

        async def get() -> list[int]:
            transport = httpx.ASGITransport(handler())
            async with httpx.AsyncClient(transport=transport, base_url="http://school") as client:
                return [(await client.get(f"/view/{name}")).status_code for name in ("Cat", "Fido")]

        codes = asyncio.run(get())
    assert codes == [409, 200]
    assert committed(school) == (["Fido"], [1])


def test_async_django_view_that_records_in_a_thread_is_refused(school: sa.Engine) -> None:
    async def get() -> int:
        transport = httpx.ASGITransport(ASGIHandler())
        async with httpx.AsyncClient(transport=transport, base_url="http://school") as client:
            return (await client.get("/async/Fido")).status_code

    assert asyncio.run(get()) == 500
    assert isinstance(Scene.error, ProgrammingError)
    assert committed(school) == ([], [])


def _keep_logging(**_: Any) -> None:
    """With a receiver, Celery does not reconfigure the process's logging, which other tests check."""


setup_logging.connect(_keep_logging)


def test_celery_task(school: sa.Engine) -> None:
    with start_worker(CELERY, pool="threads", perform_ping_check=False, shutdown_timeout=30):
        with pytest.raises(CatsAreRefusedError):
            register_in_task.delay("Cat").get(timeout=30)
        register_in_task.delay("Fido").get(timeout=30)
    assert committed(school) == (["Fido"], [1])

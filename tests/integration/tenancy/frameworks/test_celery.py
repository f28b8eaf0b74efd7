"""Celery: the tenant travels with a task to a worker, which is real here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from celery import Celery, chain, chord, group
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging

from tenancy import Tenancy
from tenancy.errors import InvalidArgument, NoCurrentTenant, TenantNotFound, TenantPurged, TenantSuspended
from tenancy.frameworks.celery import HEADER, TenantTask, install
from tests.samples.kennels import Kennel
from tests.support.deadlines import DEADLINE_SECONDS, wait_until

pytestmark = [
    pytest.mark.usefixtures("no_purge_delay"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:celery"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:kombu"),
]


def keep_logging(**_: Any) -> None:
    """With a receiver, Celery does not reconfigure the process's logging, which other tests check."""


setup_logging.connect(keep_logging)


class Tasks:
    """An application of Celery and its tasks."""

    def __init__(self, tenants: Tenancy) -> None:
        self.app: Any = Celery("kennels", broker="memory://", backend="cache+memory://")
        self.app.conf.broker_connection_retry_on_startup = True
        install(self.app, tenants=tenants)

        def task(name: str, **options: Any) -> Any:
            return self.app.task(name=name, shared=False, **options)

        @task("dog")  # type: ignore[untyped-decorator]
        def dog(*_: object) -> str:
            return tenants.application(Kennel).house_dog()

        @task("slug")  # type: ignore[untyped-decorator]
        def slug(*before: Any) -> str:
            try:
                current = tenants.current.slug
            except NoCurrentTenant:
                current = "none"
            return ",".join([*map(str, before), current])

        @task("publish")  # type: ignore[untyped-decorator]
        def publish() -> str:
            return str(slug.delay().id)

        class Base(TenantTask):
            """A base class of the user's."""

            default_retry_delay = 0

        @task("retried", base=Base, autoretry_for=(TenantSuspended,), max_retries=200)  # type: ignore[untyped-decorator]
        def retried() -> str:
            return tenants.current.slug

        @task("nested")  # type: ignore[untyped-decorator]
        def nested() -> list[str]:
            with tenants.scope("globex"):
                return [slug(), tenants.current.slug]

        self.dog, self.slug, self.publish, self.retried, self.nested = dog, slug, publish, retried, nested


@pytest.fixture
def tasks(tenants: Tenancy) -> Tasks:
    for slug, name in (("acme", "Fido"), ("globex", "Rex")):
        tenants.create(slug).get(Kennel).adopt_house_dog(name)
    return Tasks(tenants)


@contextmanager
def working(tasks: Tasks) -> Iterator[None]:
    with start_worker(tasks.app, perform_ping_check=False, shutdown_timeout=DEADLINE_SECONDS):
        yield


def result(published: Any) -> Any:
    return published.get(timeout=DEADLINE_SECONDS)


def test_the_tenant_travels_with_the_task(tasks: Tasks, tenants: Tenancy) -> None:
    with working(tasks):
        for slug, dog in (("acme", "Fido"), ("globex", "Rex")):
            with tenants.scope(slug):
                assert result(tasks.dog.delay()) == dog
                assert result(tasks.app.send_task("dog")) == dog  # by a process without the code of the task
        assert result(tasks.slug.delay()) == "none"  # the worker has left the scope


def test_tasks_published_by_tasks_have_the_same_tenant(tasks: Tasks, tenants: Tenancy) -> None:
    with working(tasks), tenants.scope("acme"):
        inner = result(tasks.publish.delay())
        chained = chain(tasks.slug.s(), tasks.slug.s(), tasks.slug.s()).apply_async()
        grouped = group(tasks.slug.s() for _ in range(3)).apply_async()
        with tenants.scope("globex"):
            crossed = chord([tasks.slug.s(), tasks.slug.s()], tasks.slug.s()).apply_async()
        assert result(tasks.app.AsyncResult(inner)) == "acme"
        assert result(chained) == "acme,acme,acme"
        assert result(grouped) == ["acme"] * 3
        assert result(crossed) == "['globex', 'globex'],globex"


def test_a_task_called_as_a_function_has_the_scope_of_its_caller(tasks: Tasks, tenants: Tenancy) -> None:
    with tenants.scope("acme"):
        assert tasks.slug() == "acme"
    assert tasks.slug() == "none"
    with working(tasks), tenants.scope("acme"):
        assert result(tasks.nested.delay()) == ["globex", "globex"]


def test_eager_tasks_have_the_scope_of_their_caller(tasks: Tasks, tenants: Tenancy) -> None:
    tasks.app.conf.task_always_eager = True
    with tenants.scope("acme"):
        assert result(tasks.slug.delay()) == "acme"
    assert result(tasks.slug.delay()) == "none"


def test_the_header_holds_the_id(tasks: Tasks, tenants: Tenancy) -> None:
    with tenants.scope("acme"):
        published = tasks.slug.delay()
    tenants.rename("acme", "apex")
    tenants.create("acme")
    with working(tasks):
        assert result(published) == "apex"


def purge(tenants: Tenancy) -> None:
    tenants.purge("acme")


def suspend(tenants: Tenancy) -> None:
    tenants.suspend("acme")


@pytest.mark.parametrize(("change", "error"), [(suspend, TenantSuspended), (purge, TenantPurged)])
def test_a_task_of_a_tenant_that_is_not_served_is_refused(
    change: Callable[[Tenancy], None], error: type[Exception], tasks: Tasks, tenants: Tenancy
) -> None:
    with tenants.scope("acme"):
        published = tasks.slug.delay()
    change(tenants)
    with working(tasks), pytest.raises(error):
        result(published)


def test_a_refused_task_is_retried_where_it_says_so(tasks: Tasks, tenants: Tenancy) -> None:
    with tenants.scope("acme"):
        published = tasks.retried.delay()
    tenants.suspend("acme")
    with working(tasks):
        wait_until(lambda: published.state == "RETRY", "a retry")
        tenants.resume("acme")
        assert result(published) == "acme"


@pytest.mark.parametrize("header", ["acme", "", 5, str(UUID(int=7))])
def test_a_wrong_header_is_refused(header: object, tasks: Tasks) -> None:
    with working(tasks), pytest.raises((TenantNotFound, TenantPurged)):
        result(tasks.slug.apply_async(headers={HEADER: header}))


def test_install_comes_before_the_tasks(tenants: Tenancy) -> None:
    app = Celery("late")
    app.Task  # noqa: B018 (uses the tasks)
    with pytest.raises(InvalidArgument, match=r"Call install\(\) right after Celery"):
        install(app, tenants=tenants)
    with pytest.raises(InvalidArgument, match="tenants is of type str"):
        install(Celery("wrong"), tenants="acme")  # type: ignore[arg-type]

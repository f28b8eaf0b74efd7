"""Pytest fixtures: a fleet of the service under test in a throw-away database, with a fresh tenant for each test.

Installed with the extra `testing`, pytest loads this module by itself. Nothing heavy is imported until a fixture needs
it, so test suites without tenants pay nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import pytest

from tenancy.testing.throw_away import SERVER_VARIABLE, ThrowAway

if TYPE_CHECKING:
    from eventsourcing.application import Application
    from eventsourcing.system import System

    from tenancy.model.tenant import Tenant
    from tenancy.tenancy import Tenancy
    from tenancy.testing.pool import TenantPool
    from tenancy.testing.postgresql import Postgres

__all__ = [
    "AsTenant",
    "MakeTenancy",
    "NewTenant",
    "as_tenant",
    "follow",
    "make_tenancy",
    "new_tenant",
    "no_purge_delay",
    "postgres_database",
    "postgres_server",
    "postgres_url",
    "tenancy_app",
    "tenancy_url",
    "tenant",
    "tenants",
    "time_travel",
]

_TClient = TypeVar("_TClient")
_KINDS: Final = ("postgresql", "sqlite")
_throw_away: Final = pytest.StashKey[ThrowAway]()
_NO_SERVER: Final = "No PostgreSQL found. Install eventsourcing-sqlalchemy[testing], or set TEST_POSTGRES_URL."


# -- the session --


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings."""
    parser.addini("tenancy_app", "the Tenancy of the service under test, or a function that returns it: module:name")
    parser.addini("tenancy_database", "the throw-away database: postgresql or sqlite", default="postgresql")
    parser.addini("tenancy_requests", "how requests name their tenant: host {slug}.example.com, or header X-Tenant")
    group = parser.getgroup("tenancy")
    group.addoption("--tenancy-database", choices=_KINDS, help="use this kind of throw-away database")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set the database's variable before any module of the service is imported."""
    _prepare(early_config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Do the same where conftest.py registers this plugin."""
    _prepare(config)


def _prepare(config: pytest.Config) -> None:
    if _throw_away in config.stash or not config.getini("tenancy_app"):
        return
    kind = getattr(config.known_args_namespace, "tenancy_database", None) or config.getini("tenancy_database")
    if kind not in _KINDS:
        raise pytest.UsageError(f"tenancy_database is {kind!r}. Set it to one of: {', '.join(_KINDS)}.")
    found = config.stash[_throw_away] = ThrowAway(kind)
    if not found.url:
        raise pytest.UsageError(_NO_SERVER)
    config.add_cleanup(found.close)
    found.set_variables()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Start one server for all processes of pytest-xdist, which inherit the environment."""
    found = config.stash.get(_throw_away, None)
    if found is not None and found.server is not None and SERVER_VARIABLE not in os.environ:
        found.start()
        found.set_variable(SERVER_VARIABLE, found.server.url())
        config.add_cleanup(found.close)


# -- a fleet of the service --


@pytest.fixture(scope="session")
def tenancy_url(request: pytest.FixtureRequest) -> str:
    """Provide the URL of the session's throw-away database, in which `tenants` live."""
    stash = request.config.stash
    if _throw_away not in stash:
        kind = request.config.getoption("--tenancy-database") or request.config.getini("tenancy_database")
        stash[_throw_away] = ThrowAway(kind)
        request.config.add_cleanup(stash[_throw_away].close)
    found = stash[_throw_away]
    if not found.url:
        pytest.fail(_NO_SERVER, pytrace=False)
    found.open()
    return found.url


@pytest.fixture(scope="session")
def tenancy_app(request: pytest.FixtureRequest, tenancy_url: str) -> Iterator[Tenancy]:  # noqa: ARG001 (it must exist)
    """Provide the Tenancy that the setting `tenancy_app` names. Override it to construct another one."""
    from importlib import import_module  # noqa: PLC0415 (as the module's docstring says)

    from tenancy.tenancy import Tenancy  # noqa: PLC0415 (as above)

    module, _, name = request.config.getini("tenancy_app").partition(":")
    if not name:
        pytest.fail("Name the fleet of the service: tenancy_app = module:tenants, in pytest's settings.", pytrace=False)
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    made = found if isinstance(found, Tenancy) else found()  # type: ignore[operator]
    with made:
        yield made


@pytest.fixture(scope="session")
def _tenancy_pool(tenancy_app: Tenancy, tenancy_url: str) -> TenantPool:
    from eventsourcing_sqlalchemy.settings import parse_url  # noqa: PLC0415 (as above)
    from tenancy.testing.pool import TenantPool  # noqa: PLC0415 (as above)

    settings = tenancy_app.settings
    if not settings.url == settings.control_url == parse_url(tenancy_url, "The URL"):
        pytest.fail(
            f"{tenancy_app!r} is not in the throw-away database, so its tenants are left alone. Let its code read "
            "SQLALCHEMY_URL, or override the fixture tenancy_app with one that uses tenancy_url.",
            pytrace=False,
        )
    tenancy_app.init()
    return TenantPool(tenancy_app)


@pytest.fixture
def tenants(tenancy_app: Tenancy, _tenancy_pool: TenantPool, no_purge_delay: None) -> Iterator[Tenancy]:  # noqa: ARG001 (for its effect)
    """Provide the fleet of the service under test without tenants; those of the test are removed after it."""
    yield tenancy_app
    _tenancy_pool.clear()


class NewTenant(Protocol):
    """The type of the fixture `new_tenant`."""

    def __call__(
        self, slug: str | None = None, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Tenant:
        """Return a new active tenant, whose hooks have run; by default its slug is `tenant`, `tenant-2` and so on."""


@pytest.fixture
def new_tenant(tenants: Tenancy, _tenancy_pool: TenantPool) -> NewTenant:  # noqa: ARG001 (it removes the tenants)
    """Provide a function that returns a new tenant, in a fraction of the time of `tenants.create`."""
    count = 0

    def make(slug: str | None = None, *, name: str | None = None, metadata: Mapping[str, Any] | None = None) -> Tenant:
        nonlocal count
        if slug is None:
            count += 1
            slug = "tenant" if count == 1 else f"tenant-{count}"
        return _tenancy_pool.claim(slug, name=name, metadata=metadata)

    return make


@pytest.fixture
def tenant(new_tenant: NewTenant) -> Tenant:
    """Provide a new active tenant with the slug `tenant`."""
    return new_tenant()


@pytest.fixture
def follow(tenants: Tenancy) -> Callable[[], int]:
    """Provide a function that lets all followers, projections and reactions catch up, in the thread that calls it."""
    from tenancy.testing.following import follow  # noqa: PLC0415 (as above)

    return lambda: follow(tenants)


class AsTenant(Protocol):
    """The type of the fixture `as_tenant`."""

    def __call__(
        self, client: _TClient, tenant: Tenant | str, *, header: str | None = None, host: str | None = None
    ) -> AbstractContextManager[_TClient]:
        """Return a context in which all requests of a test client are for a tenant."""


@pytest.fixture
def as_tenant(request: pytest.FixtureRequest) -> AsTenant:
    """Provide a function that lets a test client send its requests to a tenant, as `tenancy_requests` says."""
    from tenancy.testing.clients import as_tenant  # noqa: PLC0415 (as above)

    way, _, value = request.config.getini("tenancy_requests").strip().partition(" ")
    if way not in ("", "host", "header"):
        pytest.fail('tenancy_requests is not "host {slug}.example.com" or "header X-Tenant".', pytrace=False)

    def use(
        client: _TClient, tenant: Tenant | str, *, header: str | None = None, host: str | None = None
    ) -> AbstractContextManager[_TClient]:
        if header is None and host is None:
            header, host = (value if way == "header" else None), (value if way == "host" else None)
        return as_tenant(client, tenant, header=header, host=host)

    return use


@pytest.fixture
def time_travel(tenants: Tenancy) -> Callable[..., None]:
    """Provide a function that lets time pass for all tenants: `time_travel(days=31)`, arguments as for timedelta.

    It moves the times that the registry has recorded into the past. The clock stays as it is.
    """

    def travel(**duration: float) -> None:
        registry = tenants.fleet.registry
        table, past = registry.rows.tenants, timedelta(**duration)
        every = registry.list()
        with registry.writing_rows() as session:
            for each in every:
                values = {
                    "created_at": each.created_at - past,
                    "changed_at": each.changed_at - past,
                    "due_at": None if each.due_at is None else each.due_at - past,
                }
                session.execute(table.update().where(table.c.id == each.id).values(values))
        for each in every:
            tenants.fleet.changed(each)

    return travel


# -- databases, and fleets of their own --


class MakeTenancy(Protocol):
    """The type of the fixture `make_tenancy`."""

    def __call__(self, *, applications: Iterable[type[Application[Any]]] = (), system: System | None = None) -> Tenancy:
        """Return a Tenancy that is closed after the test."""


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """Provide the server of the test session: TEST_POSTGRES_URL, or a new one."""
    from tenancy.testing.postgresql import find_postgres  # noqa: PLC0415 (as above)

    found = request.config.stash.get(_throw_away, None)
    if found is not None and found.server is not None:
        found.start()
        yield found.server
        return
    # Without fsync: as in ThrowAway.
    server = find_postgres(os.environ.get(SERVER_VARIABLE), fsync=False)
    if server is None:
        pytest.fail(_NO_SERVER, pytrace=False)
    with server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: Postgres) -> Iterator[str]:
    """Provide the name of an empty database; `postgres_server.url(postgres_database, driver)` is its URL."""
    from tenancy.testing.postgresql import fresh_database  # noqa: PLC0415 (as above)

    with fresh_database(postgres_server) as name:
        yield name


@pytest.fixture
def postgres_url(postgres_server: Postgres, postgres_database: str) -> str:
    """Provide the URL of an empty database, for psycopg2."""
    return postgres_server.url(postgres_database)


@pytest.fixture
def no_purge_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Purge without waiting for other processes to notice."""
    monkeypatch.setattr("tenancy.lifecycle.purging.DELAY", 0.0)


@pytest.fixture
def make_tenancy(postgres_url: str, no_purge_delay: None) -> Iterator[MakeTenancy]:  # noqa: ARG001 (for its effect)
    """Provide a function that opens a Tenancy in an empty database; it purges without delay."""
    from tenancy.tenancy import Tenancy  # noqa: PLC0415 (as above)

    with ExitStack() as tenancies:

        def make(*, applications: Iterable[type[Application[Any]]] = (), system: System | None = None) -> Tenancy:
            tenancy = Tenancy(applications=applications, system=system, env={"SQLALCHEMY_URL": postgres_url})
            return tenancies.enter_context(tenancy)

        yield make

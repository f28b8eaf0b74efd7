"""Whether the databases of a fleet answer: as a call, as endpoints, and as a command."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tenancy import Tenancy
from tenancy.errors import InvalidArgument, RegistryMissing, RegistryUnavailable, TenancyClosed
from tenancy.registry import FORMAT
from tenancy.testing.postgresql import PostgresServer
from tenancy.web.asgi import ASGIMiddleware
from tenancy.web.health import ASGIHealth, HealthEndpoints, WSGIHealth
from tenancy.web.resolvers import Request, by_path
from tenancy.web.wsgi import WSGIMiddleware
from tests.acceptance.commands import Command
from tests.samples.kennels import Kennel
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.fleets import fleet_across
from tests.support.full_catalog import full_catalog


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def fleet(url: str, **variables: str) -> Tenancy:
    return Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url, **variables})


def states(tenants: Tenancy, timeout: float = DEADLINE_SECONDS) -> dict[str, type | None]:
    databases = tenants.ping(timeout).databases
    return {each.name: None if each.error is None else type(each.error) for each in databases}


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The URL of a server that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://postgres@127.0.0.1:{listener.getsockname()[1]}/silent"


# -- the call --


def test_healthy_databases_answer(url: str) -> None:
    with fleet(url) as tenants:
        tenants.create("acme")
        health = tenants.ping(DEADLINE_SECONDS)
        assert health.is_healthy
        assert [each.name for each in health.databases] == ["registry", "tenants"]
        assert all(each.seconds < DEADLINE_SECONDS for each in health.databases)


def test_a_ping_changes_nothing(url: str) -> None:
    with fleet(url) as tenants:
        tenants.init()
        schema = None if url.startswith("sqlite") else "tenancy"
        before = full_catalog(url, schema)
        position = tenants.fleet.registry.position()
        assert tenants.ping(DEADLINE_SECONDS).is_healthy
        assert full_catalog(url, schema) == before
        assert tenants.fleet.registry.position() == position


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    with fleet(f"sqlite:///{tmp_path}/missing.db") as tenants:
        health = tenants.ping(DEADLINE_SECONDS)
        assert [str(each.error) for each in health.databases] == [
            f"The database sqlite+pysqlite:///{tmp_path}/missing.db does not exist."
        ] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_missing_registry_is_not_created(postgres_url: str) -> None:
    with fleet(postgres_url) as tenants:
        assert states(tenants) == {"registry": RegistryMissing, "tenants": None}
        assert states(tenants) == {"registry": RegistryMissing, "tenants": None}


def test_a_killed_server_is_noticed_and_so_is_its_return(own_postgres_server: PostgresServer) -> None:
    with fleet(own_postgres_server.url()) as tenants:
        tenants.create("acme")
        assert tenants.ping(DEADLINE_SECONDS).is_healthy
        own_postgres_server.stop("immediate")
        assert states(tenants)["registry"] is RegistryUnavailable
        assert not any(each.is_healthy for each in tenants.ping(DEADLINE_SECONDS).databases)
        own_postgres_server.start()
        wait_until(lambda: tenants.ping(DEADLINE_SECONDS).is_healthy, "the server is back")


def test_a_silent_server_is_not_waited_for(silent_url: str) -> None:
    def threads() -> int:
        return sum(each.name == "tenancy-ping" for each in threading.enumerate())

    before = threads()
    with fleet(silent_url) as tenants:
        started_at = time.monotonic()
        for _ in range(5):
            assert states(tenants, 0.05) == {"registry": TimeoutError, "tenants": TimeoutError}
        for found in run_together([lambda: states(tenants, 0.05)] * 5):
            assert list(found.values()) == [TimeoutError, TimeoutError]
        assert time.monotonic() - started_at < DEADLINE_SECONDS
        assert threads() - before == 2  # one question to each database, however often one pings


def test_a_view_with_a_database_of_its_own_is_asked(postgres_url: str, tmp_path: Path, silent_url: str) -> None:
    with fleet_across(postgres_url) as tenants:
        tenants.init()
        assert list(states(tenants)) == ["registry", "tenants"]  # the view is beside the registry
        (projection,) = tenants.fleet.cross_tenant
        projection.url = sa.make_url(f"sqlite:///{tmp_path}/view.db")
        assert list(states(tenants)) == ["registry", "tenants", projection.name]
        assert not tenants.ping(DEADLINE_SECONDS).is_healthy
        assert list(tmp_path.iterdir()) == []
        sa.create_engine(projection.url).connect().close()
        assert tenants.ping(DEADLINE_SECONDS).is_healthy
        projection.url = sa.make_url(silent_url)
        assert states(tenants, 0.5)[projection.name] is TimeoutError


def test_a_process_of_the_version_before_stays_healthy_during_a_migration(url: str) -> None:
    table = "tenancy_fleet_settings" if url.startswith("sqlite") else "tenancy.fleet_settings"
    with fleet(url) as tenants:
        tenants.create("acme")
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {table} SET value = '{FORMAT + 1}' WHERE key = 'format'")
        engine.dispose()
        assert tenants.ping(DEADLINE_SECONDS).is_healthy


def test_wrong_arguments_and_closed_fleets(sqlite_url: str) -> None:
    tenants = fleet(sqlite_url)
    for wrong in ("2", None):
        with pytest.raises(InvalidArgument, match="Pass a number of seconds"):
            tenants.ping(wrong)  # type: ignore[arg-type]
    for number in (-1.0, float("nan")):
        with pytest.raises(InvalidArgument, match="The timeout is invalid"):
            tenants.ping(number)
    tenants.close()
    with pytest.raises(TenancyClosed):
        tenants.ping()


# -- the endpoints --

Get = Callable[..., httpx.Response]


def getter(app: Any, *, is_asgi: bool) -> Get:
    def get(path: str, method: str = "GET") -> httpx.Response:
        if not is_asgi:
            with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://10.0.0.7") as client:
                return client.request(method, path)

        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://10.0.0.7") as client:
                return await client.request(method, path)

        return asyncio.run(main())

    return get


def fail_if_called(_: Request) -> str:
    pytest.fail("a health check needs no tenant")


@pytest.fixture(params=["asgi", "wsgi", "asgi middleware", "wsgi middleware"])
def get(request: pytest.FixtureRequest, tenants: Tenancy) -> Get:
    kind: str = request.param
    is_asgi = kind.startswith("asgi")
    options: dict[str, Any] = {"tenants": tenants, "resolver": fail_if_called, "health": "/health"}
    app: Any
    if "middleware" in kind:
        app = ASGIMiddleware(None, **options) if is_asgi else WSGIMiddleware(None, **options)  # type: ignore[arg-type]
    else:
        app = ASGIHealth(tenants) if is_asgi else WSGIHealth(tenants)
    return getter(app, is_asgi=is_asgi)


def test_endpoints(get: Get, tenants: Tenancy) -> None:
    for _ in ("at first", "again"):
        live = get("/health/live")
        assert (live.status_code, live.json()) == (200, {"status": "ok"})
    answer = get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")  # there is no registry
    assert answer.json()["databases"]["registry"] == "failing"
    assert answer.headers["cache-control"] == "no-store"
    tenants.init()
    wait_until(lambda: get("/health/ready").status_code == 200, "the fleet is ready")
    answer = get("/health/ready")
    assert answer.json() == {"status": "ok", "databases": {"registry": "ok", "tenants": "ok"}}
    assert answer.headers["content-type"] == "application/json"
    head = get("/health/ready", "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    tenants.close()
    wait_until(lambda: get("/health/ready").status_code == 503, "a closed fleet is not ready")
    assert get("/health/live").status_code == 200


def test_other_paths(tenants: Tenancy) -> None:
    for app, is_asgi in ((ASGIHealth(tenants), True), (WSGIHealth(tenants), False)):
        assert getter(app, is_asgi=is_asgi)("/health/other").status_code == 404
    tenants.init()
    middleware = ASGIMiddleware(None, tenants=tenants, resolver=by_path("/t"), health="/health")  # type: ignore[arg-type]
    for path in ("/t/acme/health/live", "/health", "/health/live/", "/x/health/live"):
        assert getter(middleware, is_asgi=True)(path).json().get("code") == "not_found"


@pytest.mark.parametrize("path", ["health", "/health/", 5])
def test_a_wrong_path_is_refused(path: Any, tenants: Tenancy) -> None:
    with pytest.raises(InvalidArgument, match="health"):
        ASGIMiddleware(None, tenants=tenants, resolver=by_path(), health=path)  # type: ignore[arg-type]


def test_many_probes_share_one_question(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants.init()
    asked: list[float] = []
    ping = tenants.ping

    def counted(timeout: float) -> Any:
        asked.append(timeout)
        return ping(timeout)

    monkeypatch.setattr(tenants, "ping", counted)
    monkeypatch.setattr("tenancy.web.health._SHARED", DEADLINE_SECONDS)
    endpoints = HealthEndpoints(tenants, timeout=3.0)
    assert {endpoints.respond("/ready").status for _ in range(100)} == {200}
    assert asked == [3.0]


def test_a_process_that_does_not_work_is_neither_live_nor_ready(tenants: Tenancy) -> None:
    tenants.init()
    endpoints = HealthEndpoints(tenants, is_live=lambda: False)
    assert [endpoints.respond(path).status for path in ("/live", "/ready")] == [503, 503]


# -- the command --


def test_the_command_shows_what_answers(url: str) -> None:
    command = Command(url)
    command.ok("init")
    lines = command.ok("ping").out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["registry", "ok"], ["tenants", "ok"]]
    found = command.ok("ping", "--json", "--timeout", "60").json
    assert list(found) == ["is_healthy", "databases"]
    assert [list(each) for each in found["databases"]] == [["name", "is_healthy", "seconds", "error"]] * 2


def test_the_command_fails_when_one_does_not_answer(silent_url: str, tmp_path: Path, postgres_url: str) -> None:
    outcome = Command(silent_url, app=None)("ping", "--timeout", "0.05", "--json")
    assert (outcome.code, outcome.json["is_healthy"]) == (6, False)
    assert "has not answered" in outcome.json["databases"][0]["error"]
    outcome = Command("postgresql://postgres:secret@127.0.0.1:1/x", app=None)("ping")
    assert outcome.code == 6
    assert "secret" not in outcome.out + outcome.err
    outcome = Command(postgres_url, app=None)("ping")  # there is no registry
    assert (outcome.code, "tenancy init" in outcome.out) == (1, True)
    assert Command(f"sqlite:///{tmp_path}/missing.db", app=None)("ping").code == 6
    assert Command(postgres_url, app=None)("ping", "--timeout", "nan").code == 2
    assert json.dumps([str(each) for each in tmp_path.iterdir()]) == "[]"

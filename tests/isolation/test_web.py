"""Mixed requests to a real server with the middleware: every response belongs to the requested tenant.

Threads send requests for all tenants, each over one connection. Meanwhile some tenants are repeatedly suspended and
resumed, and one is purged.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException, IncompleteRead
from pathlib import Path
from typing import Final

import pytest

from tenancy import Tenancy
from tests.samples.kennels import Kennel
from tests.support.deadlines import run_together, wait_until
from tests.support.pgbouncer import PgBouncer
from tests.support.web_server import READS

THREADS: Final = 8
TENANTS: Final = 50
SUSPENDED: Final = range(5)
PURGED: Final = 5

# The number of names per response.
ENDPOINTS: Final = {"one": 1, "hop": 1, "many": READS, "stream": READS, "write": 1, "public": 1}
REFUSED: Final = (403, 404)
SECONDS: Final = 120.0
REPEAT: Final = int(os.environ.get("TEST_REPEAT", "1"))

pytestmark = pytest.mark.timeout(300 * REPEAT)

ROOT: Final = Path(__file__).parents[2]


@contextmanager
def server_of(kind: str, url: str, log: Path) -> Iterator[int]:
    """Run a server process; yield its port."""
    command = [sys.executable, "-m", "tests.support.web_server", kind]
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            env={**os.environ, "SQLALCHEMY_URL": url},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            try:
                port = process.stdout.readline()
                assert port, log.read_text(encoding="utf-8")
                yield int(port)
            finally:
                process.terminate()
                process.wait()


@dataclass
class Client:
    """Sends requests for random tenants over one connection, and notes wrong responses."""

    port: int
    seed: int
    is_purged: threading.Event
    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    """The number of received names."""

    def ask(self, calls: int) -> None:
        """Send requests until `calls` names were received and the tenant is purged."""
        choose = random.Random(self.seed)  # noqa: S311 (reproducible)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        while not self.wrong and (self.calls < calls or not self.is_purged.is_set()):
            self._ask(connection, choose.randrange(TENANTS), choose.choice(list(ENDPOINTS)))
        connection.close()

    def _ask(self, connection: HTTPConnection, number: int, endpoint: str) -> None:
        is_public = endpoint == "public"
        may_be_refused = number in (*SUSPENDED, PURGED) and not is_public
        must_be_refused = number == PURGED and self.is_purged.is_set() and not is_public
        expected = "unset" if is_public else name_of(number)
        path = "/public" if is_public else f"/t/slug-{number}/{endpoint}?name={name_of(number)}"
        what = f"{endpoint} of {number}"
        try:
            status, names = self._get(connection, path)
        except (HTTPException, ConnectionError) as error:
            connection.close()
            # Only a started response may be aborted, and only if its tenant has become unavailable.
            status, names = 0, error.partial.decode().split() if isinstance(error, IncompleteRead) else []
            self._check(may_be_refused and endpoint == "stream", f"{what}: {error!r}")
        if may_be_refused and endpoint == "write":
            # Work after the response may be refused; the server then closes the connection, perhaps during the next
            # request.
            connection.close()
        self.calls += len(names)
        self._check(set(names) <= {expected}, f"{what}: {names}")
        if status == 200:
            self._check(len(names) == ENDPOINTS[endpoint] and not must_be_refused, f"{what}: {names}")
        elif status:
            self._check(may_be_refused and status in REFUSED, f"{what}: {status}")

    @staticmethod
    def _get(connection: HTTPConnection, path: str) -> tuple[int, list[str]]:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        return response.status, body.split() if response.status == 200 else []

    def _check(self, is_right: bool, what: str) -> None:
        if not is_right:
            self.wrong.append(what)


def name_of(number: int) -> str:
    return f"name-{number}"


def get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def disturb(tenants: Tenancy, port: int, is_purged: threading.Event, is_over: threading.Event) -> None:
    """Suspend and resume tenants in turn until the test is over, and purge one."""
    try:
        for round_number in itertools.count():
            number = SUSPENDED[round_number % len(SUSPENDED)]
            suspend_for_a_while(tenants, port, number, purged=PURGED if round_number == 0 else None)
            is_purged.set()
            if is_over.is_set():
                break
    finally:
        is_purged.set()  # the clients wait for it


def suspend_for_a_while(tenants: Tenancy, port: int, number: int, *, purged: int | None) -> None:
    slug = f"slug-{number}"
    tenants.suspend(slug)
    wait_until(lambda: get(port, f"/t/{slug}/one")[0] == 403, "that a suspended tenant is refused")
    if purged is not None:
        tenants.purge(f"slug-{purged}")
    tenants.resume(slug)


def assert_responses_are_their_tenants(kind: str, url: str, calls: int, log: Path) -> None:
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url}) as tenants:
        for number, tenant in enumerate(tenants.create_many(f"slug-{number}" for number in range(TENANTS))):
            tenant.get(Kennel).adopt_house_dog(name_of(number))
        is_purged, is_over = threading.Event(), threading.Event()
        with server_of(kind, url, log) as port:
            clients = [Client(port, seed, is_purged) for seed in range(THREADS)]

            def run_clients() -> None:
                try:
                    run_together([partial(client.ask, calls // THREADS) for client in clients], SECONDS * REPEAT)
                finally:
                    is_over.set()

            calls_of_both: list[Callable[[], None]] = [run_clients, partial(disturb, tenants, port, is_purged, is_over)]
            run_together(calls_of_both, 2 * SECONDS * REPEAT)
            assert [what for client in clients for what in client.wrong] == []
            assert get(port, f"/t/slug-{PURGED}/one")[0] == 404
        for number in set(range(TENANTS)) - {PURGED}:
            assert set(tenants[f"slug-{number}"].get(Kennel).names()) == {name_of(number)}


@pytest.mark.parametrize(("kind", "calls"), [("asgi", 5_000), ("wsgi", 6_000)])
def test_responses_are_their_tenants_on_postgresql(
    kind: str, calls: int, postgres_url: str, repeat: Callable[[int], range], tmp_path: Path
) -> None:
    assert_responses_are_their_tenants(kind, postgres_url, len(repeat(calls)), tmp_path / "log")


@pytest.mark.parametrize(("kind", "calls"), [("asgi", 5_000), ("wsgi", 3_000)])
def test_responses_are_their_tenants_behind_pgbouncer(
    kind: str, calls: int, pooled_url: str, repeat: Callable[[int], range], tmp_path: Path
) -> None:
    assert_responses_are_their_tenants(kind, pooled_url, len(repeat(calls)), tmp_path / "log")


@pytest.fixture
def pooled_url(pgbouncer: PgBouncer, postgres_database: str) -> str:
    return pgbouncer.url(postgres_database)


def test_responses_are_their_tenants_on_sqlite(sqlite_url: str, repeat: Callable[[int], range], tmp_path: Path) -> None:
    assert_responses_are_their_tenants("asgi", sqlite_url, len(repeat(1_000)), tmp_path / "log")


def test_a_request_does_not_inherit_the_previous_tenant(sqlite_url: str, tmp_path: Path) -> None:
    """Uvicorn starts a pipelined request in the context of the previous one."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": sqlite_url}) as tenants:
        tenants.create("slug-0", name=name_of(0)).get(Kennel).adopt_house_dog(name_of(0))
    request = "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: {}\r\n\r\n"
    both = request.format("/t/slug-0/one", "keep-alive") + request.format("/public", "close")
    with (
        server_of("asgi", sqlite_url, tmp_path / "log") as port,
        socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection,
    ):
        connection.sendall(both.encode())
        answer = b"".join(iter(partial(connection.recv, 65536), b"")).decode()
    assert (answer.count("200 OK"), answer.count(name_of(0)), answer.count("unset")) == (2, 1, 1)

"""Admission: every process refuses unavailable tenants, also through objects handed out before."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tenancy import Tenancy, Tenant
from tenancy.errors import (
    RegistryUnavailable,
    TenantNotFound,
    TenantPurged,
    TenantSuspended,
)
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel
from tests.support import catalog
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.relay import Relay


class ServingProcess:
    """Another process that holds an application of a tenant."""

    def __init__(self, tenant: Tenant) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.serving_process"],
            env={**os.environ, **tenant.env()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=DEADLINE_SECONDS)

    def ask(self, call: str) -> str:
        """Make it run a call; return "done" or the name of the error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{call}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@pytest.fixture
def acme(tenants: Tenancy) -> Tenant:
    return tenants.create("acme")


@pytest.fixture
def process(acme: Tenant) -> Iterator[ServingProcess]:
    with ServingProcess(acme) as other:
        assert other.ask("write") == "done"
        yield other


def refused(process: ServingProcess, call: str, error: str) -> None:
    wait_until(lambda: process.ask(call) == error, f"{call} raises {error}")


def test_suspended_everywhere(tenants: Tenancy, process: ServingProcess) -> None:
    tenants.suspend("acme", reads=True)
    refused(process, "write", "TenantSuspended")
    assert process.ask("read") == "done"
    tenants.suspend("acme", reads=False)
    refused(process, "read", "TenantSuspended")
    tenants.resume("acme")
    refused(process, "write", "done")


def test_transaction_that_is_open_does_not_commit(fleet: MakeFleet, tmp_path: Path) -> None:
    # In a separate file, because a file has one writer, and the suspension would wait for the transaction.
    tenants = fleet(TENANCY_CONTROL_URL=f"sqlite:///{tmp_path / 'control.db'}")
    acme = tenants.create("acme")
    with ServingProcess(acme) as process:
        assert process.ask("write") == process.ask("begin") == "done"
        tenants.suspend("acme")
        refused(process, "read", "TenantSuspended")
        assert process.ask("commit") == "TenantSuspended"
        tenants.resume("acme")
        assert acme.get(Kennel).names() == ["Rex"]
        refused(process, "begin", "done")
        assert process.ask("commit") == "done"
        assert acme.get(Kennel).names() == ["Rex", "in a transaction"]


def test_subscription_ends(tenants: Tenancy, process: ServingProcess) -> None:
    assert process.ask("subscribe") == "done"
    tenants.suspend("acme")
    # It sleeps, because nothing is recorded.
    assert process.ask("follow") == "TenantSuspended"


def test_purged_while_writing(tenants: Tenancy, process: ServingProcess, url: str) -> None:
    answers: list[str] = []

    def write() -> None:
        while not answers or answers[-1] == "done":
            answers.append(process.ask("write"))

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(answers) > 3, "it writes")
    tenants.purge("acme")
    writer.join(20)
    assert answers[-1] == "TenantPurged"
    assert process.ask("write") == process.ask("read") == process.ask("begin") == "TenantPurged"
    assert catalog.tenants(url) == set()


def test_another_registry_cache_follows(tenants: Tenancy, elsewhere: Tenancy) -> None:
    """The same in one process with two registry caches, where every change can be checked."""
    tenants.create("acme")
    there = elsewhere["acme"]
    kennel = there.get(Kennel)

    def follows(condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what)

    tenants.suspend("acme")
    follows(lambda: elsewhere["acme"].status == "suspended", "suspended")
    with pytest.raises(TenantSuspended):
        kennel.register("Fido")
    tenants.resume("acme")
    follows(lambda: elsewhere["acme"].status == "active", "resumed")
    kennel.register("Fido")
    tenants.rename("acme", "globex")
    follows(lambda: "acme" not in elsewhere, "renamed")
    assert "acme" not in elsewhere, "nor when the slug is cached as unknown"
    assert elsewhere["globex"].get(Kennel) is kennel
    tenants.create("acme")
    follows(lambda: "acme" in elsewhere, "a slug that was unknown")
    assert elsewhere["acme"].id != there.id
    tenants.purge("globex")
    follows(lambda: "globex" not in elsewhere, "purged")
    with pytest.raises(TenantPurged):
        there.get(Kennel)
    with pytest.raises(TenantPurged):
        kennel.names()


def test_own_changes_are_visible_immediately(tenants: Tenancy, repeat: Callable[[int], range]) -> None:
    """While other threads of this process look up and cache the same tenants."""
    tenants.init()
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            for slug in ("acme", "globex"):
                if slug in tenants:
                    tenants.fleet.registry_cache.find(slug)

    def change() -> None:
        try:
            for _ in repeat(2):
                tenant = tenants.create("acme")
                assert "acme" in tenants
                tenants.suspend("acme")
                with pytest.raises(TenantSuspended):
                    tenant.get(Kennel)
                tenants.resume("acme")
                tenant.get(Kennel)
                tenants.rename("acme", "globex")
                with pytest.raises(TenantNotFound):
                    tenants["acme"]
                assert tenants["globex"].id == tenant.id
                list(tenants.purge_many(["globex"]))
                with pytest.raises(TenantNotFound):
                    tenants["globex"]
        finally:
            is_over.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tenancy.lifecycle.purging.DELAY", 0.0)
        run_together([change, ask, ask], seconds=60)


def test_answer_from_before_an_own_change_is_not_cached(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup finds no tenant, and before it caches that, the tenant is created."""
    tenants.init()
    registry = tenants.fleet.registry
    find = registry.find

    def find_slowly_once(slug: str) -> Tenant | None:
        answer = find(slug)
        monkeypatch.setattr(registry, "find", find)
        tenants.create(slug)
        return answer

    monkeypatch.setattr(registry, "find", find_slowly_once)
    assert "acme" not in tenants
    assert "acme" in tenants


def test_admission_queries_the_registry_occasionally(tenants: Tenancy, acme: Tenant) -> None:
    """Not at every call: a thousand calls need a handful of queries."""
    kennel = acme.get(Kennel)
    kennel.register("Fido")
    registry: Any = tenants.fleet.registry
    asked, ask = 0, registry.changed_since

    def count(position: int) -> Any:
        nonlocal asked
        asked += 1
        return ask(position)

    registry.changed_since = count
    for _ in range(1000):
        kennel.factory.datastore.admit(writes=True)  # type: ignore[attr-defined]
    assert asked < 10


# -- without the registry --


class Outage:
    """A fleet whose registry is behind a relay that can be stopped."""

    def __init__(self, make: MakeFleet, control: str, **variables: object) -> None:
        self._target = control
        self.relay = Relay(control)
        self.relay.__enter__()
        self.tenants = make(TENANCY_CONTROL_URL=self.relay.url(), SQLALCHEMY_CONNECT_TIMEOUT=1, **variables)

    def stop(self) -> None:
        """Make the server unreachable."""
        self.relay.break_at("before", "select", times=10**9)

    def start(self) -> None:
        """Make the server reachable again."""
        self.relay.break_at("before", "select", times=0)


@pytest.fixture
def outage(postgres_url: str, make_fleet: Callable[[str], MakeFleet], tmp_path: Path) -> Iterator[Outage]:
    found = Outage(make_fleet(f"sqlite:///{tmp_path / 'tenants.db'}"), postgres_url, TENANCY_MAX_OUTAGE=2)
    yield found
    found.tenants.close()
    found.relay.__exit__()


def test_known_tenants_are_served_without_the_registry_for_a_time(outage: Outage) -> None:
    tenants = outage.tenants
    kennel = tenants.create("acme").get(Kennel)
    tenants.create("globex")
    kennel.register("Fido")
    outage.stop()
    registry_cache: Any = tenants.fleet.registry_cache
    count_use = 0
    while registry_cache._failed_at < registry_cache._queried_at:  # noqa: SLF001 (as above)
        kennel.register("Rex")
        count_use += 1
    kennel.register("Rex")  # it is noticed, and tolerated
    with pytest.raises(RegistryUnavailable):
        tenants["globex"]  # which is not cached
    with pytest.raises(RegistryUnavailable):
        tenants.suspend("acme")

    def is_refused() -> bool:
        try:
            kennel.register("Rex")
        except RegistryUnavailable as error:
            return "registry" in str(error)
        return False

    wait_until(is_refused, "refused in the end")
    with pytest.raises(RegistryUnavailable):
        kennel.names()
    outage.start()
    wait_until(lambda: not is_refused(), "served again")
    assert kennel.names()[-1] == "Rex"
    tenants.suspend("acme")
    with pytest.raises(TenantSuspended):
        kennel.names()


def test_one_caller_at_a_time_queries_an_unreachable_registry(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other callers continue: a server that swallows connections would block each of them for seconds."""
    tenants = outage.tenants
    acme = tenants.create("acme")
    tenants["acme"]
    registry_cache = tenants.fleet.registry_cache
    asking, release = threading.Event(), threading.Event()
    questions = 0

    def swallow(_: int) -> Any:
        nonlocal questions
        questions += 1
        asking.set()
        release.wait(20)
        msg = "gone"
        raise RegistryUnavailable(msg)

    monkeypatch.setattr(registry_cache, "_max_outage", 1000.0)
    monkeypatch.setattr("tenancy.registry.cache._SILENCE", 0.1)
    monkeypatch.setattr(registry_cache.registry, "changed_since", swallow)
    registry_cache._queried_at -= 10  # noqa: SLF001 (as after a time without queries)
    first = threading.Thread(target=registry_cache.admit, args=(acme.id,), kwargs={"writes": True})
    first.start()
    assert asking.wait(20)
    # While that caller still waits for an answer:
    run_together([lambda: registry_cache.admit(acme.id, writes=True)] * 8)
    release.set()
    first.join(20)
    run_together([lambda: registry_cache.admit(acme.id, writes=True)] * 8)
    assert questions == 1


def test_error_of_the_tenants_database_is_not_a_registry_outage(
    own_postgres_server: Any, sqlite_url: str, make_fleet: Callable[[str], MakeFleet]
) -> None:
    tenants = make_fleet(own_postgres_server.url())(TENANCY_CONTROL_URL=sqlite_url)
    tenants.create("acme")
    own_postgres_server.stop()
    with pytest.raises(Exception, match="Cannot connect") as caught:
        tenants.create("globex")
    assert not isinstance(caught.value, RegistryUnavailable)
    assert tenants["globex"].status == "provisioning"
    assert tenants["acme"].status == "active"

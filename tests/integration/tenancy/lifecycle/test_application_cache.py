"""The application cache: one application per class and tenant, bounded, and closed once unused."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4
from weakref import ref

import pytest
from eventsourcing.application import Application

from eventsourcing_sqlalchemy.engines.references import engines
from tenancy import Tenancy
from tenancy.application_cache import ApplicationCache
from tenancy.errors import TenancyError
from tests.integration.tenancy.lifecycle.conftest import MakeFleet
from tests.samples.kennels import Kennel, Visits
from tests.support.deadlines import run_together
from tests.support.engine_count import (
    count_references,
    counts,
    engines_in_use,
    forget_abandoned,
    wait_for_references,
)


class Shop(Application[UUID]):
    """An application without a database."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Disable the garbage collector, so that only reference counts free objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_concurrent_callers_share_one_application(repeat: Callable[[int], range]) -> None:
    for _ in repeat(20):
        applications, tenant_id = ApplicationCache(10), uuid4()
        made: list[Shop] = []

        def construct(made: list[Shop] = made) -> Shop:
            made.append(Shop())
            return made[-1]

        def get(
            here: ApplicationCache = applications, make: Callable[[], Shop] = construct, whose: UUID = tenant_id
        ) -> Shop:
            return here.get(Shop, whose, make)

        found = run_together([get] * 16)
        assert len(made) == 1
        assert all(each is made[0] for each in found)


def test_concurrent_callers_share_one_application_after_a_failure(repeat: Callable[[int], range]) -> None:
    """A caller that waited for a failed construction does not construct beside another one."""
    for _ in repeat(20):
        applications, tenant_id = ApplicationCache(10), uuid4()
        at_once, most, calls = 0, 0, 0

        def construct() -> Shop:
            nonlocal at_once, most, calls
            at_once += 1
            calls += 1
            most = max(most, at_once)
            number = calls
            shop = Shop()
            at_once -= 1
            if number <= 4:
                raise LookupError
            return shop

        def get(
            here: ApplicationCache = applications, make: Callable[[], Shop] = construct, whose: UUID = tenant_id
        ) -> Shop | None:
            try:
                return here.get(Shop, whose, make)
            except LookupError:
                return None

        found = {id(each) for each in run_together([get] * 12) if each is not None}
        assert (most, calls, len(found)) == (1, 5, 1)
        assert len(applications._constructing) == 0  # noqa: SLF001 (otherwise a lock per failure would stay)


def test_least_recently_used_application_is_evicted() -> None:
    applications, made = ApplicationCache(2), [uuid4() for _ in range(3)]
    for tenant_id in made[:2]:
        applications.get(Shop, tenant_id, Shop)
    applications.get(Shop, made[0], Shop)
    applications.get(Shop, made[2], Shop)
    assert len(applications) == 2
    assert {key[1] for key in applications._kept} == {made[0], made[2]}  # noqa: SLF001 (the cached ones)


def test_evicted_application_in_use_is_shared() -> None:
    applications, tenant_id = ApplicationCache(1), uuid4()
    held = applications.get(Shop, tenant_id, Shop)
    applications.get(Shop, uuid4(), Shop)
    assert not held.closing.is_set()
    assert applications.get(Shop, tenant_id, Shop) is held


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("cls", [Kennel, Visits])
def test_closed_once_unused(fleet: MakeFleet, cls: type[Application[UUID]]) -> None:
    tenants = fleet(TENANCY_MAX_APPLICATIONS=1)
    application = tenants.create("acme").get(cls)
    other = tenants.create("globex")
    application.repository  # noqa: B018 (constructed on access)
    if isinstance(application, Kennel):
        application.take_snapshot(application.register("Fido"))
        assert application.names() == ["Fido"]
    closing, datastore = application.closing, ref(application.factory.datastore)  # type: ignore[attr-defined]
    other.get(cls)
    assert not closing.is_set()
    assert application.recorder.max_notification_id() == (1 if cls is Kennel else None)
    del application
    assert closing.is_set()
    assert datastore() is None, "a reference cycle keeps it until the collector runs"


def test_purged_tenant_is_evicted(tenants: Tenancy, no_purge_delay: None) -> None:  # noqa: ARG001 (a fixture)
    tenants.create("acme").get(Kennel)
    tenants.create("globex").get(Kennel)
    assert len(tenants.fleet.application_cache) == 2
    tenants.purge("acme")
    assert len(tenants.fleet.application_cache) == 1


def test_closed_fleet_closes_its_applications(fleet: MakeFleet) -> None:
    tenants = fleet(TENANCY_MAX_APPLICATIONS=1)
    held = [tenants.create(slug).get(Kennel) for slug in ("acme", "globex")]
    tenants.close()
    assert all(application.closing.is_set() for application in held)


def test_closed_application_is_constructed_again(tenants: Tenancy) -> None:
    """The library's usual form closes: ``with application as app``."""
    acme = tenants.create("acme")
    with acme.get(Kennel) as kennel:
        kennel.register("Fido")
    assert acme.get(Kennel).names() == ["Fido"]
    assert acme.get(Kennel) is acme.get(Kennel) is not kennel


def test_closed_fleet_returns_no_application(fleet: MakeFleet) -> None:
    forget_abandoned()
    before = engines_in_use()
    tenants, other = fleet(), fleet()  # while one fleet is open, the registry answers
    acme = tenants.create("acme")
    tenants.close()
    with pytest.raises(TenancyError, match=r"closed.*Construct another one"):
        acme.get(Kennel)
    other.close()
    assert engines_in_use() == before


class Stuck(Shop):
    """Fails to close, once."""

    def close(self) -> None:
        if not self.closing.is_set():
            super().close()
            raise OSError(self.name)


def test_cache_closes_the_others_when_an_application_fails_to_close() -> None:
    applications = ApplicationCache(10)
    held = [applications.get(cls, uuid4(), cls) for cls in (Stuck, Shop, Stuck, Shop)]
    with pytest.raises(OSError, match="Stuck"):
        applications.close()
    assert all(application.closing.is_set() for application in held)


def test_fleet_closes_its_connections_when_an_application_fails_to_close(fleet: MakeFleet) -> None:
    before = count_references()
    tenants = fleet()
    acme = tenants.create("acme")
    acme.get(Kennel).register("Fido")
    tenants.fleet.application_cache.get(Stuck, acme.id, Stuck)
    with pytest.raises(OSError, match="Stuck"):
        tenants.close()
    assert wait_for_references(before, 0) == {}


def test_fleet_closed_during_a_construction_closes_the_application() -> None:
    applications, made = ApplicationCache(10), list[Shop]()

    def construct() -> Shop:
        applications.close()
        made.append(Shop())
        return made[0]

    with pytest.raises(TenancyError, match="closed"):
        applications.get(Shop, uuid4(), construct)
    assert made[0].closing.is_set()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the test does what the warning is about
def test_fork_during_a_construction(tenants: Tenancy) -> None:
    """The forked child lacks the threads that held a lock in the parent."""
    acme = tenants.create("acme")
    acme.get(Kennel)
    application_cache, registry_cache = tenants.fleet.application_cache, tenants.fleet.registry_cache
    held = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with application_cache._lock, registry_cache._lock, registry_cache._querying:  # noqa: SLF001 (as above)
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    pid = os.fork()
    if pid == 0:  # the alarm ends a deadlock
        import signal  # noqa: PLC0415 (only in the child)

        signal.alarm(15)
        try:
            acme.get(Kennel).register("Fido")
            os._exit(0)
        finally:
            os._exit(1)
    done.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0
    assert acme.get(Kennel).names() == ["Fido"]


def test_two_thousand_tenants_in_one_process(sqlite_url: str, make_fleet: Callable[[str], MakeFleet]) -> None:
    """With a bound of a hundred, in several threads; no thread and no connection remains."""
    count = 2000
    forget_abandoned()
    leases_before = sum(counts(engines).values())
    tenants = make_fleet(sqlite_url)(Shop, TENANCY_MAX_APPLICATIONS=100, SQLALCHEMY_SQLITE_SYNCHRONOUS="NORMAL")
    made = list(tenants.create_many(f"t{number}" for number in range(count)))
    threads_before = threading.active_count()
    seen: list[Any] = []

    def use(number: int) -> None:
        application = made[number].get(Shop)
        seen.append(ref(application))
        assert application.recorder.max_notification_id() is None

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(count)))
    assert threading.active_count() <= threads_before
    assert len(tenants.fleet.application_cache) == 100
    assert sum(each() is not None for each in seen) <= 100 + 4
    datastore: Any = made[-1].get(Shop).factory.datastore  # type: ignore[attr-defined]
    assert datastore.engine.pool.checkedin() <= 5
    assert sum(counts(engines).values()) - leases_before <= 100 + 1 + 4

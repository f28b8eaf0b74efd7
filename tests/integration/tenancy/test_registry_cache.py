"""The process-local cache of the registry: leases, answers from memory, and queries."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from tenancy import Tenancy
from tenancy.errors import RegistryUnavailable, TenantNotFound
from tenancy.registry import cache as cache_module
from tenancy.registry.cache import acquire_registry_cache, registry_caches
from tests.samples.kennels import Kennel
from tests.support.deadlines import DEADLINE_SECONDS, run_together, wait_until
from tests.support.engine_count import counts, engines_in_use, forget_abandoned


def test_a_former_slug_stays_unknown_on_repeated_lookups(tenants: Tenancy) -> None:
    tenants.create("acme")
    assert tenants["acme"].slug == "acme"
    tenants.rename("acme", "globex")
    assert tenants["globex"].slug == "globex"
    for _ in range(3):
        with pytest.raises(TenantNotFound):
            tenants["acme"]


def test_an_abandoned_fleet_releases_the_registry(sqlite_url: str, tmp_path: Path) -> None:
    forget_abandoned()
    before = engines_in_use()
    tenants = Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": sqlite_url})
    tenants.create("acme").get(Kennel)
    assert len(engines_in_use()) > len(before)
    del tenants
    gc.collect()
    # The next fleet, of any registry, finds the note and releases the lease.
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": f"sqlite:///{tmp_path}/other.db"}) as other:
        other.init()
    forget_abandoned()
    assert engines_in_use() == before


def test_abandoned_applications_release_it_once(tenants: Tenancy) -> None:
    """The collector runs the datastore's finalizer, and then the application's finalizer closes it."""
    tenants.create("acme")
    reference = acquire_registry_cache(tenants.settings)
    count = sum(counts(registry_caches).values())
    for _ in range(3):
        application = Kennel(env=tenants.env("acme"))
        assert sum(counts(registry_caches).values()) == count + 1
        application.itself = application  # type: ignore[attr-defined]  # so that only the collector finds it
        del application
        gc.collect()
        registry_caches.drain()
        assert sum(counts(registry_caches).values()) == count
    reference.release()
    assert tenants.create("globex").slug == "globex"  # the registry is still open


def test_recent_lookups_are_answered_from_memory(tenants: Tenancy) -> None:
    tenants.create("acme")

    def is_answered() -> bool:
        # Retry if the machine pauses between the two for longer than an entry is fresh.
        acme = tenants["acme"]
        with suppress(TenantNotFound):
            tenants["unknown"]
        return tenants.recall("ACME") == acme and is_refused()

    def is_refused() -> bool:
        try:
            return tenants.recall("unknown") is not None
        except TenantNotFound:
            return True

    wait_until(is_answered, "an answer from memory")


def test_uncached_tenants_are_not_answered_from_memory(tenants: Tenancy) -> None:
    tenants.create("acme")
    assert tenants.recall("globex") is None


def test_old_entries_are_not_answered_from_memory(tenants: Tenancy) -> None:
    tenants.create("acme")
    assert tenants["acme"].slug == "acme"
    wait_until(lambda: tenants.recall("acme") is None, "that the entry is too old")


class CountingLock:
    """A lock that counts its callers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.comers = 0

    def acquire(self, *, timeout: float) -> bool:
        self.comers += 1
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()


def test_one_caller_waits_for_an_unresponsive_registry(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants.create("acme")
    assert tenants["acme"].slug == "acme"
    registry_cache = tenants.fleet.registry_cache
    lock, asked = CountingLock(), []

    def ask(position: int) -> NoReturn:
        wait_until(lambda: lock.comers == 5, "all others wait")
        asked.append(position)
        raise RegistryUnavailable("The registry does not answer.")

    monkeypatch.setattr(cache_module, "DELAY", DEADLINE_SECONDS)
    monkeypatch.setattr(cache_module, "_SILENCE", DEADLINE_SECONDS)
    monkeypatch.setattr(registry_cache, "_querying", lock)
    monkeypatch.setattr(registry_cache, "_queried_at", registry_cache._queried_at - cache_module._WAIT_AGE)  # noqa: SLF001 (as above)
    monkeypatch.setattr(registry_cache.registry, "changed_since", ask)
    assert [tenant.slug for tenant in run_together([lambda: tenants["acme"]] * 5)] == ["acme"] * 5
    assert len(asked) == 1

"""What a process knows of the tenants, and when it has to ask."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import NoReturn

import pytest

from tenancy import Tenancy, directory
from tenancy.errors import RegistryUnavailable, TenantNotFound
from tests.deadlines import DEADLINE_SECONDS, run_together, wait_until


def test_a_slug_of_before_a_rename_is_nobodys_however_often_it_is_asked_for(tenants: Tenancy) -> None:
    tenants.create("acme")
    assert tenants["acme"].slug == "acme"
    tenants.rename("acme", "globex")
    assert tenants["globex"].slug == "globex"
    for _ in range(3):
        with pytest.raises(TenantNotFound):
            tenants["acme"]


def test_memory_answers_what_has_just_been_asked(tenants: Tenancy) -> None:
    tenants.create("acme")

    def is_answered() -> bool:
        # Somebody who is interrupted between the two for longer than memory is fresh tries again.
        acme = tenants["acme"]
        with suppress(TenantNotFound):
            tenants["nobody"]
        return tenants.recall("ACME") == acme and is_refused()

    def is_refused() -> bool:
        try:
            return tenants.recall("nobody") is not None
        except TenantNotFound:
            return True

    wait_until(is_answered, "an answer from memory")


def test_memory_does_not_answer_what_it_does_not_know(tenants: Tenancy) -> None:
    tenants.create("acme")
    assert tenants.recall("globex") is None


def test_memory_does_not_answer_when_it_is_old(tenants: Tenancy) -> None:
    tenants.create("acme")
    assert tenants["acme"].slug == "acme"
    wait_until(lambda: tenants.recall("acme") is None, "that memory is too old")


class CountingLock:
    """A lock that knows how many have come for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.comers = 0

    def acquire(self, *, timeout: float) -> bool:
        self.comers += 1
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()


def test_one_caller_waits_for_a_registry_that_does_not_answer(
    tenants: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants.create("acme")
    assert tenants["acme"].slug == "acme"
    known = tenants._directory  # noqa: SLF001 (what happens in it cannot be seen from outside)
    lock, asked = CountingLock(), []

    def ask(position: int) -> NoReturn:
        wait_until(lambda: lock.comers == 5, "all others wait")
        asked.append(position)
        raise RegistryUnavailable("The registry does not answer.")

    monkeypatch.setattr(directory, "DELAY", DEADLINE_SECONDS)
    monkeypatch.setattr(directory, "_SILENCE", DEADLINE_SECONDS)
    monkeypatch.setattr(known, "_asking", lock)
    monkeypatch.setattr(known, "_asked_at", known._asked_at - directory._WAIT_AGE)  # noqa: SLF001 (as above)
    monkeypatch.setattr(known.registry, "changed_since", ask)
    assert [tenant.slug for tenant in run_together([lambda: tenants["acme"]] * 5)] == ["acme"] * 5
    assert len(asked) == 1

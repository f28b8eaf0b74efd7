"""What a process knows of the tenants, and when it has to ask."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tenancy import Tenancy
from tenancy.errors import TenantNotFound
from tests.deadlines import wait_until


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

"""A tenant's name and metadata can be changed, and every process sees the change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tenancy import Tenancy, TenantStatus
from tenancy.errors import InvalidArgument, TenantNotFound, TenantPurged
from tenancy.model.tenant import Action
from tests.support.deadlines import run_together, wait_until


def remarks(tenants: Tenancy, slug: str) -> list[tuple[str, str | None]]:
    return [(change.action, change.remark) for change in tenants.history(slug)][2:]


def test_metadata_is_merged_or_replaced(tenants: Tenancy) -> None:
    tenants.create("acme", metadata={"plan": "free", "trial": True, "limits": {"seats": 1, "rooms": 2}})
    changed = tenants.update("acme", metadata={"plan": "pro", "limits": {"seats": 5}}, unset=["trial", "other"])
    assert changed.metadata == tenants["acme"].metadata == {"plan": "pro", "limits": {"seats": 5}}
    assert tenants.update("acme", metadata={"new": None}, replace=True).metadata == {"new": None}
    assert tenants.update("acme", metadata={}, replace=True).metadata == {}
    assert tenants.list()[0].metadata == {}


def test_the_history_has_the_keys_and_never_the_values(tenants: Tenancy) -> None:
    tenants.create("acme", metadata={"plan": "canary-free", "trial": True})
    tenants.update("acme", name="Canary Ltd", metadata={"plan": "canary-pro", "seats": 5}, unset=["trial"], actor="u-1")
    tenants.update("acme", name="Canary Inc")
    assert remarks(tenants, "acme") == [("update", "name; set plan, seats; unset trial"), ("update", "name")]
    assert tenants.history("acme")[2].actor == "u-1"
    assert "anary" not in str(tenants.history("acme"))


def test_what_is_so_already_is_no_change(tenants: Tenancy) -> None:
    tenants.create("acme", name="Acme", metadata={"plan": "pro", "one": 1})
    tenants.update("acme", name="Acme", metadata={"plan": "pro"}, unset=["trial"])
    assert remarks(tenants, "acme") == []
    tenants.update("acme", metadata={"one": True})
    assert remarks(tenants, "acme") == [("update", "set one")], "1 and True are equal in Python only"


def test_another_process_sees_the_change(tenants: Tenancy, elsewhere: Tenancy) -> None:
    tenants.create("acme", metadata={"plan": "free"})
    with elsewhere.scope("acme"):
        assert elsewhere.current.metadata["plan"] == "free"
        tenants.update("acme", metadata={"plan": "pro"})
        wait_until(lambda: elsewhere.current.metadata["plan"] == "pro", "the new plan")


def test_concurrent_updates_of_different_keys_are_all_kept(tenants: Tenancy) -> None:
    tenants.create("acme")
    keys = [f"key-{number}" for number in range(8)]

    def setting(key: str) -> Callable[[], object]:
        return lambda: tenants.update("acme", metadata={key: 1})

    run_together(map(setting, keys))
    assert sorted(tenants["acme"].metadata) == keys


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metadata": {"a": 1}, "unset": ["a"]}, "both set and unset"),
        ({"replace": True}, "needs the new metadata"),
        ({"metadata": {}, "unset": ["a"], "replace": True}, "nothing to unset"),
        ({"unset": "trial"}, "a list of keys"),
        ({"unset": [1]}, "A key in unset is of type int"),
        ({"metadata": ["plan"]}, "The metadata is of type list"),
        ({"name": 4711}, "name is of type int"),
        ({"metadata": {"weight": "heavy"}}, "is not a number from"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], message: str, tenants: Tenancy) -> None:
    tenants.create("acme", metadata={"a": 0})
    with pytest.raises(InvalidArgument, match=message):
        tenants.update("acme", **arguments)
    assert tenants["acme"].metadata == {"a": 0}


def test_any_tenant_but_one_that_is_being_purged_can_be_changed(tenants: Tenancy) -> None:
    tenants.create("acme")
    for change in (tenants.suspend, tenants.archive, tenants.delete):
        change("acme")
        tenants.update("acme", metadata={"was": change.__name__})
    assert tenants["acme"].status == "deleted"
    with tenants.fleet.registry.locked("acme") as (session, found):
        tenants.fleet.registry.change(session, found, Action.PURGE, None, status=TenantStatus.PURGING)
    with pytest.raises(TenantPurged):
        tenants.update("acme", metadata={"was": "purging"})
    with pytest.raises(TenantNotFound):
        tenants.update("globex", name="Globex")

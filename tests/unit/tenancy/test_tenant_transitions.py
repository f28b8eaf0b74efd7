"""Transitions between statuses, and the calls that each status refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tenancy.errors import (
    TenantArchived,
    TenantDeleted,
    TenantNotReady,
    TenantPurged,
    TenantSuspended,
    TenantUnavailable,
    TransitionRefused,
)
from tenancy.lifecycle.transitions import TRANSITIONS, next_status
from tenancy.model.placement import Placement
from tenancy.model.tenant import Action, Tenant, TenantStatus, check_status

PROVISIONING, ACTIVE, SUSPENDED, ARCHIVED, DELETED, PURGING = TenantStatus

SINCE = datetime(2026, 11, 23, 9, 12, tzinfo=UTC)
TENANT = Tenant(
    id=UUID(int=1),
    slug="acme",
    name="Canary Name",
    status=ACTIVE,
    reads=False,
    placement=Placement("acme_k3f9", ""),
    adopted=False,
    created_at=SINCE,
    changed_at=SINCE,
    previous=(SUSPENDED,),
    reason="invoice 4711",
)

NOTHING, REFUSED = "nothing", "refused"

# The effect of each action on a tenant in each status; it was suspended before it was archived or deleted.
TABLE = {
    Action.ACTIVATE: [ACTIVE, NOTHING, REFUSED, REFUSED, REFUSED, REFUSED],
    Action.SUSPEND: [REFUSED, SUSPENDED, NOTHING, REFUSED, REFUSED, REFUSED],
    Action.RESUME: [REFUSED, NOTHING, ACTIVE, REFUSED, REFUSED, REFUSED],
    Action.ARCHIVE: [REFUSED, ARCHIVED, ARCHIVED, NOTHING, REFUSED, REFUSED],
    Action.RESTORE: [REFUSED, NOTHING, NOTHING, SUSPENDED, REFUSED, REFUSED],
    Action.DELETE: [REFUSED, DELETED, DELETED, DELETED, NOTHING, REFUSED],
    Action.UNDELETE: [REFUSED, NOTHING, NOTHING, NOTHING, SUSPENDED, REFUSED],
    Action.PURGE: [PURGING, PURGING, PURGING, PURGING, PURGING, NOTHING],
}


def test_table_is_complete() -> None:
    of_domains = {Action.ADD_DOMAIN, Action.VERIFY_DOMAIN, Action.REMOVE_DOMAIN}
    keeps_status = of_domains | {
        Action.RENAME,
        Action.UPDATE,
        Action.INSPECT,
        Action.SKIP,
        Action.MIGRATE,
        Action.REBUILD,
    }
    assert TABLE.keys() == TRANSITIONS.keys() == set(Action) - {Action.CREATE, Action.ADOPT} - keeps_status


@pytest.mark.parametrize(
    ("action", "status", "outcome"),
    [
        pytest.param(action, status, outcome, id=f"{action}-{status}")
        for action, outcomes in TABLE.items()
        for status, outcome in zip(TenantStatus, outcomes, strict=True)
    ],
)
def test_transition(action: Action, status: TenantStatus, outcome: str) -> None:
    tenant = replace(TENANT, status=status)
    if outcome == REFUSED:
        with pytest.raises(TransitionRefused, match=f"'acme' is {status}: {action} is for tenants that are") as caught:
            next_status(tenant, action)
        assert caught.value.tenant == "acme"
        assert "Canary" not in str(caught.value)
    else:
        assert next_status(tenant, action) == (None if outcome == NOTHING else outcome)


@pytest.mark.parametrize(
    ("status", "reads", "may_read", "may_write", "error"),
    [
        (PROVISIONING, True, False, False, TenantNotReady),
        (ACTIVE, False, True, True, None),
        (SUSPENDED, False, False, False, TenantSuspended),
        (SUSPENDED, True, True, False, TenantSuspended),
        (ARCHIVED, True, False, False, TenantArchived),
        (DELETED, True, False, False, TenantDeleted),
        (PURGING, True, False, False, TenantPurged),
    ],
)
def test_calls_that_a_status_refuses(
    status: TenantStatus, *, reads: bool, may_read: bool, may_write: bool, error: type[TenantUnavailable] | None
) -> None:
    tenant = replace(TENANT, status=status, reads=reads)
    for writes, is_allowed in ((False, may_read), (True, may_write)):
        if is_allowed:
            check_status(tenant, writes=writes)
            continue
        assert error is not None
        with pytest.raises(error, match=r"Tenant 'acme' is .* since 2026-11-23 09:12Z") as caught:
            check_status(tenant, writes=writes)
        assert "invoice 4711" in str(caught.value)
        assert "Canary" not in str(caught.value)
        assert "acme_k3f9" not in str(caught.value)


def test_message_is_plain_english() -> None:
    with pytest.raises(TenantSuspended) as caught:
        check_status(replace(TENANT, status=SUSPENDED), writes=False)
    assert str(caught.value) == (
        "Tenant 'acme' is suspended since 2026-11-23 09:12Z (invoice 4711). Resume it: tenancy resume acme"
    )


def test_repr_has_the_name_and_neither_metadata_nor_reason() -> None:
    tenant = replace(TENANT, metadata={"email": "canary@example.org"})
    assert "slug='acme', name='Canary Name'" in repr(tenant)
    assert "canary@" not in repr(tenant)
    assert "4711" not in repr(tenant)

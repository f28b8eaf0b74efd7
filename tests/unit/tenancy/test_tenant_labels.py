"""A bounded number of tenants have labels of their own: the most active ones."""

from __future__ import annotations

from uuid import UUID

import pytest

from tenancy.telemetry.tenant_labels import OTHER, TenantLabels

A, B, C, D = (UUID(int=number) for number in range(4))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("tenancy.telemetry.tenant_labels.time.monotonic", lambda: now[0])
    return now


def test_tenants_above_the_limit_share_one_label() -> None:
    dropped: list[str] = []
    labels = TenantLabels(2, dropped.append)
    assert [labels.count(each, 1) for each in (A, B, C, A)] == [str(A), str(B), OTHER, str(A)]
    labels.forget([A, C])
    assert dropped == [str(A)]
    assert [labels.count(each, 1) for each in (C, A)] == [str(C), OTHER]  # a label is free again


def test_much_more_active_tenants_take_labels(clock: list[float]) -> None:
    dropped: list[str] = []
    labels = TenantLabels(2, dropped.append)
    for tenant_id, amount in ((A, 100), (B, 3), (C, 6), (D, 5)):
        labels.count(tenant_id, amount)
    clock[0] = 61.0
    # Twice as active is not enough: each change starts a series.
    assert labels.count(D, 0) == OTHER
    for tenant_id, amount in ((A, 100), (B, 3), (C, 7), (D, 5)):
        labels.count(tenant_id, amount)
    clock[0] = 130.0
    assert [labels.count(each, 1) for each in (A, C, B, D)] == [str(A), str(C), OTHER, OTHER]
    assert dropped == [str(B)]


def test_no_labels_at_all() -> None:
    labels = TenantLabels(0, lambda _: None)
    assert labels.count(A, 1) == OTHER

"""Metrics label a limited number of tenants by id, and contain no names."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from prometheus_client import REGISTRY

from eventsourcing_sqlalchemy.naming import TableName
from tenancy.following.pipes import Pipe
from tenancy.model.placement import Placement
from tenancy.model.tenant import Tenant, TenantStatus
from tenancy.runner.assignments import Assignment
from tenancy.runner.metrics import Metrics


def assignment() -> Assignment:
    table, now = TableName(None, "events"), datetime.now(UTC)
    tenant = Tenant(
        id=uuid4(),
        slug="acme",
        name="Acme",
        status=TenantStatus.ACTIVE,
        reads=False,
        placement=Placement("acme", ""),
        adopted=False,
        created_at=now,
        changed_at=now,
    )
    return Assignment(tenant, Pipe("Leader", "Follower"), table, table, lacks_tables=False)


def count(label: object) -> float | None:
    labels = {"tenant": str(label), "follower": "Follower"}
    return REGISTRY.get_sample_value("tenancy_runner_notifications_total", labels)


def test_tenants_above_the_limit_share_one_label() -> None:
    metrics = Metrics(max_tenants=2)
    assignments = [assignment() for _ in range(4)]
    for number, each in enumerate(assignments):
        metrics.processed(each, number + 1)
        metrics.failed(each)
    assert [count(each.tenant.id) for each in assignments] == [1, 2, None, None]
    assert count("other") == 3 + 4
    metrics.forget([each.tenant.id for each in assignments])
    assert [count(each.tenant.id) for each in assignments] == [None] * 4
    metrics.processed(assignments[3], 5)  # a label is free again
    assert count(assignments[3].tenant.id) == 5


def test_process_gauges() -> None:
    Metrics().state(tenants=3, ready=2, quarantined=1)
    assert REGISTRY.get_sample_value("tenancy_runner_tenants") == 3
    assert REGISTRY.get_sample_value("tenancy_runner_quarantined") == 1

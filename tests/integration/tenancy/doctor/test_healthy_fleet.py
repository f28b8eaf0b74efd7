"""A fleet without faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from eventsourcing_sqlalchemy.dialects.protocols import Executor
from tenancy import Tenancy
from tenancy.operations.doctor import examine, repair
from tests.support.examinations import levels

ABOUT = [
    "applications", "database", "distributions", "driver", "due", "migrations", "orphans", "registry", "rights",
    "sequences", "steps", "tables", "versions",
]  # fmt: skip


def test_a_healthy_fleet_has_no_fault(tenants: Tenancy) -> None:
    findings = examine(tenants.fleet)
    assert levels(findings) == {}
    assert sorted({finding.name for finding in findings} - {"pooler"}) == ABOUT
    assert list(repair(tenants.fleet)) == []


class Counting:
    """An executor that counts queries."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.count = 0

    def fetch(self, statement: str, parameters: Sequence[Any] = (), *, prepare: bool = True) -> Sequence[Sequence[Any]]:
        self.count += 1
        return self._executor.fetch(statement, parameters, prepare=prepare)


def test_the_whole_fleet_is_examined_in_few_queries(tenants: Tenancy, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    run_there = tenants.fleet.shard.datastore.run

    def run_counting(work: Callable[[Any], Any], *_: object) -> Any:
        def counted(executor: Executor) -> Any:
            counting = Counting(executor)
            try:
                return work(counting)
            finally:
                counts.append(counting.count)

        return run_there(counted)

    list(tenants.create_many(f"tenant-{number}" for number in range(30)))
    application_specs, every = tenants.application_specs(), tenants.list()
    monkeypatch.setattr(tenants.fleet.shard.datastore, "run", run_counting)
    assert list(tenants.fleet.inventory.faults(every, application_specs)) == []
    assert counts == [1]
    counts.clear()
    assert tenants.fleet.inventory.sequences_behind(every, application_specs) == []
    assert sum(counts) <= 3

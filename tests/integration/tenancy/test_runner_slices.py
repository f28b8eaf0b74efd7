"""Slices on a real database: how one follower's leaders share them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from eventsourcing.application import Application
from eventsourcing.system import ProcessApplication, System

from tenancy import Tenancy
from tests.samples.training_school.application import Dog


class Busy(Application[UUID]):
    """A leader that always has more events."""


class Calm(Application[UUID]):
    """A leader with few events."""


class Both(ProcessApplication[UUID]):
    """Follows both leaders."""

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        pass


def test_busy_leader_leaves_slices_to_the_others(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenancy.runner.worker._NOTIFICATIONS", 2)
    monkeypatch.setattr("tenancy.runner.worker._SECONDS", 60.0)  # only the number limits the slice
    system = System(pipes=[[Busy, Both], [Calm, Both]])
    with Tenancy(system=system, env={"SQLALCHEMY_URL": sqlite_url}) as tenants:
        acme = tenants.create("acme")
        for leader, count in ((Busy, 10), (Calm, 3)):
            acme.get(leader).save(*(Dog(f"Dog {number}") for number in range(count)))
        runner = tenants.runner()
        runner._coordinator.start()  # noqa: SLF001 (without threads: the test runs the slices)
        assignments = runner._assignments.all()  # noqa: SLF001 (as above)
        more, processed = {"Busy", "Calm"}, []
        for _ in range(4):
            more = runner._workers[0]._run_slice((acme.id, "Both"), more)  # noqa: SLF001 (as above)
            assert "Busy" in more
            processed.append({assignment.pipe.leader: assignment.processed for assignment in assignments})
        assert processed == [
            {"Busy": 2, "Calm": 0},
            {"Busy": 2, "Calm": 2},
            {"Busy": 4, "Calm": 2},
            {"Busy": 5, "Calm": 3},
        ]
        runner.stop()

"""Turns on a real database: what a follower is let do in one, and in the next."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from eventsourcing.application import Application
from eventsourcing.system import ProcessApplication, System

from tenancy import Tenancy
from tests.tenancy.kennel import Dog


class Busy(Application[UUID]):
    """A leader that always has more."""


class Calm(Application[UUID]):
    """A leader that has something now and then."""


class Both(ProcessApplication[UUID]):
    """Follows both."""

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        pass


def test_leader_that_always_has_more_leaves_turns_to_the_others(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenancy.runner.worker._NOTIFICATIONS", 2)
    monkeypatch.setattr("tenancy.runner.worker._SECONDS", 60.0)  # what counts here is the number
    system = System(pipes=[[Busy, Both], [Calm, Both]])
    with Tenancy(system=system, env={"SQLALCHEMY_URL": sqlite_url}) as tenants:
        acme = tenants.create("acme")
        for leader, count in ((Busy, 10), (Calm, 3)):
            acme.get(leader).save(*(Dog(f"Dog {number}") for number in range(count)))
        runner = tenants.runner()
        runner._coordinator.start()  # noqa: SLF001 (without the threads: the turns are taken here)
        assignments = runner._assignments.all()  # noqa: SLF001 (as above)
        more, processed = {"Busy", "Calm"}, []
        for _ in range(4):
            more = runner._worker._run_slice((acme.id, "Both"), more)  # noqa: SLF001 (as above)
            assert "Busy" in more
            processed.append({assignment.pipe.leader: assignment.processed for assignment in assignments})
        assert processed == [
            {"Busy": 2, "Calm": 0},
            {"Busy": 2, "Calm": 2},
            {"Busy": 4, "Calm": 2},
            {"Busy": 5, "Calm": 3},
        ]
        runner.stop()

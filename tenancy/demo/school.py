"""The system of one tenant, and the work that is done in it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import WaitInterruptedError
from eventsourcing.system import MultiThreadedRunner, SingleThreadedRunner

from tenancy.demo.system import APPLICATIONS, Kennels, Reports, Trainers

EVENTS_PER_AGGREGATE = 10
CATCH_UP_SECONDS = 20.0
TRICKS = ("sit", "roll over", "fetch", "play dead")

_TApplication = TypeVar("_TApplication", bound=Application[Any])


@dataclass(frozen=True)
class School:
    """A system under a runner of the library, and how many events its applications are going to record."""

    tenant: str
    """Stands in every event; empty when there is only one."""
    place: str
    """What the places of its applications are called, perhaps with `{application}` in it."""
    runner: SingleThreadedRunner[UUID] | MultiThreadedRunner[UUID]
    trainers_events: int
    kennels_events: int

    def get(self, cls: type[_TApplication]) -> _TApplication:
        """Return one of its applications."""
        return self.runner.get(cls)

    @property
    def applications(self) -> Sequence[Application[Any]]:
        """Its applications, in the order of APPLICATIONS."""
        return [self.get(cls) for cls in APPLICATIONS]

    @property
    def work(self) -> Sequence[Callable[[], None]]:
        """What is to be done; each may run in a thread of its own."""
        return [self._teach, self._house]

    def _teach(self) -> None:
        trainers = self.get(Trainers)
        for number in range(self.trainers_events):
            if number % EVENTS_PER_AGGREGATE == 0:
                trainer_id = trainers.hire(self.own("Ana"))
            else:
                trainers.teach(trainer_id, self.own("Fido"), TRICKS[number % len(TRICKS)])

    def _house(self) -> None:
        kennels = self.get(Kennels)
        for number in range(self.kennels_events):
            if number % EVENTS_PER_AGGREGATE == 0:
                kennel_id = kennels.build(self.own("North"))
            else:
                kennels.admit(kennel_id, self.own(f"Dog {number}"))

    def own(self, name: str) -> str:
        """Return a name that tells whose it is."""
        return f"{name} of {self.tenant}" if self.tenant else name

    def catch_up(self) -> None:
        """Return when Reports has followed everything, or when it is clear that it does not: the checks tell."""
        has_errored = self.runner.has_errored if isinstance(self.runner, MultiThreadedRunner) else None
        with suppress(TimeoutError, WaitInterruptedError):
            for leader in (self.get(Trainers), self.get(Kennels)):
                self.get(Reports).recorder.wait(
                    leader.name, leader.recorder.max_notification_id(), CATCH_UP_SECONDS, has_errored
                )

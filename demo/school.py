"""The applications of one tenant, and the work that is done in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from eventsourcing.application import Application

from demo.system import APPLICATIONS, Kennels, Trainers

EVENTS_PER_AGGREGATE = 10
TRICKS = ("sit", "roll over", "fetch", "play dead")

_TApplication = TypeVar("_TApplication", bound=Application[Any])


class Source(Protocol):
    """Whoever has the applications of one school: a runner of the library, or a tenant."""

    def get(self, cls: type[_TApplication], /) -> _TApplication:
        """Return one of them."""


@dataclass(frozen=True)
class School:
    """The applications of one tenant, and how many events they are going to record."""

    tenant: str
    """Stands in every event; empty when there is only one."""
    place: str
    """What the places of its applications are called, perhaps with `{application}` in it."""
    source: Source
    trainers_events: int
    kennels_events: int

    def get(self, cls: type[_TApplication]) -> _TApplication:
        """Return one of its applications."""
        return self.source.get(cls)

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

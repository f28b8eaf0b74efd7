"""One tenant's applications, and the work that they do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from eventsourcing.application import Application

from demo.system import APPLICATIONS, Kennels, Trainers

EVENTS_PER_AGGREGATE = 10
TRICKS = ("sit", "roll over", "fetch", "play dead")

_TApplication = TypeVar("_TApplication", bound=Application[Any])


class Source(Protocol):
    """A provider of one school's applications: one of the library's runners, or a tenant."""

    def get(self, cls: type[_TApplication], /) -> _TApplication:
        """Return an application."""


@dataclass(frozen=True)
class School:
    """One tenant's applications, and the number of events that they record."""

    tenant: str
    """Part of every event; empty without tenants."""
    placement: str
    """The name of the applications' placements; it may contain `{application}`."""
    source: Source
    trainers_events: int
    kennels_events: int

    def get(self, cls: type[_TApplication]) -> _TApplication:
        """Return an application."""
        return self.source.get(cls)

    @property
    def applications(self) -> Sequence[Application[Any]]:
        """The applications, in the order of APPLICATIONS."""
        return [self.get(cls) for cls in APPLICATIONS]

    @property
    def work(self) -> Sequence[Callable[[], None]]:
        """The functions to run; each may run in its own thread."""
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
        """Return a name that contains the tenant."""
        return f"{name} of {self.tenant}" if self.tenant else name

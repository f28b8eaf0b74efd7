"""What the command line is tried on: an application, a fleet of it, and programs that `tenancy exec` runs."""

from __future__ import annotations

import os
import sys
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from tenancy import Tenancy


class Dog(Aggregate):
    @event("Enrolled")
    def __init__(self, name: str) -> None:
        self.name = name


class Kennel(Application[Any]):
    def enrol(self, name: str) -> None:
        self.save(Dog(name))

    def count(self) -> int:
        return int(self.recorder.max_notification_id() or 0)


class Reports(Kennel):
    name = "Reports"


def tenants() -> Tenancy:
    """Return a fleet of kennels."""
    return Tenancy(applications=[Kennel])


GIVEN = {
    "CIPHER_KEY": "AAECAwQFBgcICQoLDA0ODw==",
    "COMPRESSOR_TOPIC": "zlib",
    "OWN": "s3cret",
    "OWN_SQLALCHEMY_PASSWORD": "pa55",
}


def given() -> Tenancy:
    """Return a fleet whose code passes variables."""
    return Tenancy(applications=[Kennel], env=GIVEN)


def failing() -> Tenancy:
    """Fail, as code may."""
    msg = "the moon is full"
    raise RuntimeError(msg)


def leaking() -> Tenancy:
    """Fail, and tell everybody the URL."""
    msg = f"cannot use {os.environ['SQLALCHEMY_URL']}"
    raise RuntimeError(msg)


ready = 42
"""Not a fleet."""


def write_for_ever() -> None:
    """Record events until that is refused."""
    kennel = Kennel()
    while True:
        kennel.enrol("Fido")
        sys.stdout.write("written\n")
        sys.stdout.flush()


if __name__ == "__main__":
    write_for_ever()

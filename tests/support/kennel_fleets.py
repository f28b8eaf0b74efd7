"""Fleets of kennels for the command line, and a program that `tenancy exec` runs."""

from __future__ import annotations

import os
import sys

from tenancy import Tenancy
from tests.samples.kennels import Kennel


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
    """Raise an error of the application's code."""
    msg = "the moon is full"
    raise RuntimeError(msg)


def leaking() -> Tenancy:
    """Raise an error whose message contains the URL."""
    msg = f"cannot use {os.environ['SQLALCHEMY_URL']}"
    raise RuntimeError(msg)


ready = 42
"""Not a fleet."""


def write_until_refused() -> None:
    """Record events until an error ends the program."""
    kennel = Kennel()
    while True:
        kennel.register("Fido")
        sys.stdout.write("written\n")
        sys.stdout.flush()


if __name__ == "__main__":
    write_until_refused()

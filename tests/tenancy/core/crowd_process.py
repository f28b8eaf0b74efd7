"""One of many processes that do something to the same tenants at once, when they are told to.

Usage: crowd_process.py WHAT URL. It says "ready", waits for a line, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tenancy import Tenancy
from tenancy.errors import TenancyError, TenantExists, TenantNotFound, TenantPurged, TransitionRefused
from tests.tenancy.core.kennel import Kennel

SLUGS = ("acme", "globex", "initech", "umbrella")

VERBS: list[Callable[[Tenancy, str, str], object]] = [
    lambda tenants, slug, _: tenants.create(slug),
    lambda tenants, slug, _: tenants.create(slug, exist_ok=True),
    lambda tenants, slug, other: list(tenants.create_many([slug, other], exist_ok=True)),
    lambda tenants, slug, other: tenants.rename(slug, other),
    lambda tenants, slug, _: tenants.suspend(slug),
    lambda tenants, slug, _: tenants.resume(slug),
    lambda tenants, slug, _: tenants.purge(slug),
]


def create(tenants: Tenancy) -> str:
    """Create one slug, as all others do."""
    try:
        return str(tenants.create("acme").id)
    except TenantExists:
        return "TenantExists"


def mingle(tenants: Tenancy, threads: int = 8, rounds: int = 3) -> list[str]:
    """Create, rename, suspend and purge overlapping slugs from many threads; return the errors that no document
    names.
    """

    def live(seed: float) -> list[str]:
        chance = random.Random(seed)  # noqa: S311 (nothing secret)
        errors = []
        for _ in range(rounds):
            slug, other = chance.sample(SLUGS, 2)
            try:
                chance.choice(VERBS)(tenants, slug, other)
            except (TenantExists, TenantNotFound, TenantPurged, TransitionRefused):
                pass
            except Exception as error:  # noqa: BLE001 (what is reported)
                errors.append(f"{type(error).__name__}: {error}")
        return errors

    with ThreadPoolExecutor(threads) as pool:
        seeds = [random.random() for _ in range(threads)]  # noqa: S311 (as above)
        return [error for errors in pool.map(live, seeds) for error in errors]


WHAT: dict[str, Callable[[Tenancy], Any]] = {
    "create": create,
    "exist_ok": lambda tenants: str(tenants.create("acme", exist_ok=True).id),
    "request_id": lambda tenants: str(tenants.create("acme", request_id="r-1").id),
    "mingle": mingle,
}


def main() -> None:
    """Do what is asked when it is time."""
    what, url = sys.argv[1:]
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url, "SQLALCHEMY_LOCK_TIMEOUT": "60"}) as tenants:
        print("ready", flush=True)  # noqa: T201 (to the test)
        sys.stdin.readline()
        try:
            answer = WHAT[what](tenants)
        except TenancyError as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer))  # noqa: T201 (as above)


if __name__ == "__main__":
    main()

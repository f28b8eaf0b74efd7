"""Many processes that do something to the same tenants at once.

Usage: crowd_process.py WHAT URL COUNT. It forks, so that fifty take not much longer to begin than one.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tenancy import Tenancy
from tenancy.errors import TenantExists, TenantNotFound, TenantUnavailable, TransitionRefused
from tests.samples.kennels import Kennel

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
            except (TenantExists, TenantNotFound, TenantUnavailable, TransitionRefused):
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


def child(what: str, url: str, ready: int, start: int, answers: int) -> None:
    """Be one of the processes: say that it is ready, wait for the start, and answer with a line."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url, "SQLALCHEMY_LOCK_TIMEOUT": "60"}) as tenants:
        os.write(ready, b".")
        os.read(start, 1)  # until nobody can write to it any more
        try:
            answer = WHAT[what](tenants)
        except Exception as error:  # noqa: BLE001 (the answer)
            answer = f"{type(error).__name__}: {error}"
        os.write(answers, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Fork before anything is connected, let all begin at once, and print their answers as a list."""
    what, url, count = sys.argv[1:]
    (ready, is_ready), (start, starter), (answers, answer) = os.pipe(), os.pipe(), os.pipe()
    for _ in range(int(count)):
        if os.fork() == 0:
            os.close(starter)
            os.close(answers)
            child(what, url, is_ready, start, answer)
            os._exit(0)
    os.close(answer)
    for _ in range(int(count)):
        os.read(ready, 1)
    os.close(starter)
    with os.fdopen(answers) as lines:
        print(json.dumps([json.loads(line) for line in lines]))  # noqa: T201 (to the test)


if __name__ == "__main__":
    main()

"""Processes that change the same tenants concurrently.

Usage: concurrent_creation_process.py TASK URL COUNT. It forks, because fifty forks start almost as fast as one.
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
    """Create the same slug as all other processes."""
    try:
        return str(tenants.create("acme").id)
    except TenantExists:
        return "TenantExists"


def change_at_random(tenants: Tenancy, threads: int = 8, rounds: int = 3) -> list[str]:
    """Create, rename, suspend and purge overlapping slugs in many threads; return all undocumented errors."""

    def live(seed: float) -> list[str]:
        chance = random.Random(seed)  # noqa: S311 (not for security)
        errors = []
        for _ in range(rounds):
            slug, other = chance.sample(SLUGS, 2)
            try:
                chance.choice(VERBS)(tenants, slug, other)
            except (TenantExists, TenantNotFound, TenantUnavailable, TransitionRefused):
                pass
            except Exception as error:  # noqa: BLE001 (reported)
                errors.append(f"{type(error).__name__}: {error}")
        return errors

    with ThreadPoolExecutor(threads) as pool:
        seeds = [random.random() for _ in range(threads)]  # noqa: S311 (as above)
        return [error for errors in pool.map(live, seeds) for error in errors]


WHAT: dict[str, Callable[[Tenancy], Any]] = {
    "create": create,
    "exist_ok": lambda tenants: str(tenants.create("acme", exist_ok=True).id),
    "request_id": lambda tenants: str(tenants.create("acme", request_id="r-1").id),
    "change_at_random": change_at_random,
}


def child(what: str, url: str, ready: int, start: int, answers: int) -> None:
    """Run in a forked process: report that it is ready, wait for the start, and write one line."""
    with Tenancy(applications=[Kennel], env={"SQLALCHEMY_URL": url, "SQLALCHEMY_LOCK_TIMEOUT": "60"}) as tenants:
        os.write(ready, b".")
        os.read(start, 1)  # until the writing end is closed
        try:
            answer = WHAT[what](tenants)
        except Exception as error:  # noqa: BLE001 (reported)
            answer = f"{type(error).__name__}: {error}"
        os.write(answers, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Fork before connecting, start all processes at the same moment, and print their answers as a list."""
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
        print(json.dumps([json.loads(line) for line in lines]))  # noqa: T201 (read by the test)


if __name__ == "__main__":
    main()

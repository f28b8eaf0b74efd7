"""Mixed calls to all tenants from many threads: every answer must belong to the requested tenant."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from uuid import UUID

from demo.system import Kennels
from tenancy.tenancy import Tenancy

THREADS = 16
WRITES = 0.05
"""The fraction of calls that write before they read."""


def mixed_calls(tenants: Tenancy, slugs: Sequence[str], calls: int) -> Mapping[str, int]:
    """Write and read for random tenants. Return the number of `right` and `wrong` answers, and the number of recorded
    events by slug.
    """
    with ThreadPoolExecutor(THREADS, "demo-caller") as threads:
        each = calls // THREADS
        done = [threads.submit(_call, tenants, slugs, each, Random(number)) for number in range(THREADS)]  # noqa: S311 (not for security)
    counts: Counter[str] = Counter()
    for future in done:
        counts.update(future.result())
    return counts


def _call(tenants: Tenancy, slugs: Sequence[str], calls: int, random: Random) -> Counter[str]:
    counts: Counter[str] = Counter()
    own: dict[str, UUID] = {}
    for _ in range(calls):
        slug = random.choice(slugs)
        with tenants.scope(slug):
            name = tenants.current.name
            kennels = tenants.application(Kennels)
            if slug not in own:
                own[slug] = kennels.build(f"South of {name}")
                counts[slug] += 1
            elif random.random() < WRITES:
                kennels.admit(own[slug], f"Rex of {name}")
                counts[slug] += 1
            answer = kennels.residents(own[slug])
        counts["right" if all(each.endswith(f" of {name}") for each in answer) else "wrong"] += 1
    return counts

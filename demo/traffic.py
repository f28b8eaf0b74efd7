"""Mixed calls to all tenants from many threads: every answer has to be of the tenant that was asked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from uuid import UUID

from demo.system import Kennels
from tenancy.tenancy import Tenancy

THREADS = 16
WRITES = 0.05
"""Which part of the calls writes before it reads."""


def mixed_calls(tenants: Tenancy, slugs: Sequence[str], calls: int) -> Mapping[str, int]:
    """Write and read for tenants at random, and return how many answers were `right` and `wrong`,
    and by the slugs how many events were recorded.
    """
    with ThreadPoolExecutor(THREADS, "demo-caller") as threads:
        each = calls // THREADS
        done = [threads.submit(_call, tenants, slugs, each, Random(number)) for number in range(THREADS)]  # noqa: S311 (nobody has to guess it)
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

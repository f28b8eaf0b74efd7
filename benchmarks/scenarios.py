"""The scenarios for all contestants, through the library's public recorder and application interfaces.

Each function measures one family of the catalog, and verifies the work before it returns a result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from benchmarks import fleet, following, reading, starting, writing
from benchmarks.measurement import Measurement

if TYPE_CHECKING:
    from benchmarks.catalog import Scenario, Size
    from benchmarks.places import Place

FAMILIES: Final[dict[str, Callable[[Scenario, Place, Size], Measurement]]] = {
    "W1": writing.append,
    "W2": writing.append,
    "W3": writing.append_to_one,
    "W4": writing.append_to_many,
    "W5": writing.application,
    "P1": writing.process,
    "R1": reading.read_aggregates,
    "R2": reading.read_pages,
    "R3": following.receive,
    "R3c": following.catch_up,
    "T1": starting.provision,
    "M1": starting.construct,
    "fleet": fleet.fleet,
}

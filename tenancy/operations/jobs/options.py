"""How a job runs: canaries, the check after them, the error budget, leases."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument

__all__ = ["ERROR_BUDGET", "LEASE_SECONDS", "JobOptions", "max_failures"]

ERROR_BUDGET: Final = "1%"
"""By default one failure per hundred tenants is tolerated, rounded up: one failing tenant never halts a job."""
LEASE_SECONDS: Final = 20.0
_BUDGET: Final = re.compile(r"(\d{1,9})|(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
_MIN_LEASE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How a job runs. Raises InvalidArgument for values that do not fit together."""

    canary: int = 0
    """The number of items that run first, and must all end well before the others start."""
    check: Callable[[], bool] | None = None
    """Called after the canaries; the job halts unless it returns True. Requires canaries."""
    error_budget: str = ERROR_BUDGET
    """The number of items that may fail, or a percentage such as "1%", rounded up. One more halts the job."""
    lease_seconds: float = LEASE_SECONDS
    """Seconds of silence after which another executor takes over an item."""

    def __post_init__(self) -> None:
        check_type("canary", self.canary, int, "a number of tenants")
        check_type("lease_seconds", self.lease_seconds, (int, float), "a number of seconds")
        max_failures(self.error_budget, 0)
        if self.canary < 0 or not self.lease_seconds >= _MIN_LEASE:
            msg = "The number of canaries is negative, or the lease is shorter than half a second."
            raise InvalidArgument(msg, remedy="Pass canary=0 or more, and lease_seconds=0.5 or more.")
        if self.check is not None and not self.canary:
            msg = "A check runs after the canaries, but the job has no canaries."
            raise InvalidArgument(msg, remedy="Pass a number of canaries (--canary), or drop the check.")


def max_failures(error_budget: str, items: int) -> int:
    """Return the number of items that may fail under an error budget.

    Raises InvalidArgument unless it is a number or a percentage, such as "3" or "0.5%".
    """
    found = _BUDGET.fullmatch(error_budget) if isinstance(error_budget, str) else None
    if found is None:
        msg = "The error budget is neither a number nor a percentage."
        raise InvalidArgument(msg, remedy='Pass a number of tenants, such as "3", or a percentage, such as "1%".')
    number, percentage = found.groups()
    return int(number) if number else ceil(items * Fraction(percentage) / 100)

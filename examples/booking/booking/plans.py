"""What a business pays for. The plan is in the tenant's metadata."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["PLANS", "metadata_of"]

PLANS: Final[dict[str, dict[str, Any]]] = {
    "free": {"weight": 1},
    "pro": {"weight": 4},
}
"""Plan to what it adds to the metadata: ``weight`` is the share of the runner's turns."""


def metadata_of(plan: str) -> dict[str, Any]:
    """Return the metadata of a tenant with a plan; raises KeyError for an unknown one."""
    return {"plan": plan, **PLANS[plan]}

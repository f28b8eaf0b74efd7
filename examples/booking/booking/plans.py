"""What a business pays for. The plan is in the tenant's metadata."""

from __future__ import annotations

from typing import Any, Final

from tenancy import Quotas, Tenant

__all__ = ["PLANS", "metadata_of", "quotas_of"]

PLANS: Final = {
    "free": Quotas(events=1000, events_per_second=10),
    "pro": Quotas(events_per_second=100),
}
"""The limits of each plan."""

_WEIGHTS: Final = {"free": 1, "pro": 4}


def metadata_of(plan: str) -> dict[str, Any]:
    """Return the metadata of a new business. ``weight`` is its share of the runner's turns."""
    return {"plan": plan, "weight": _WEIGHTS[plan]}


def quotas_of(tenant: Tenant) -> Quotas:
    """Return the limits of a business; in force within a second after its plan was changed."""
    return PLANS[tenant.metadata.get("plan", "free")]

"""Check the limits in tenants' metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tenancy.model.weights import weight_fault
from tenancy.operations.doctor.finding import Finding

if TYPE_CHECKING:
    from tenancy.model.tenant import Tenant

__all__ = ["check"]


def check(every: Sequence[Tenant]) -> Iterator[Finding]:
    """Report metadata from before this version, or written past it, that is ignored."""
    for tenant in every:
        fault = weight_fault(tenant.metadata)
        if fault is not None:
            what = f"{tenant.slug!r}: {fault}. The runner uses the weight 1."
            remedy = f"Fix it: tenancy update {tenant.slug} --set weight=1"
            yield Finding(name="limits", level="warning", what=what, remedy=remedy, tenant=tenant.slug)

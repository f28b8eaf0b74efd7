"""Check the limits in tenants' metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tenancy.model.quotas import quotas_fault
from tenancy.model.weights import weight_fault
from tenancy.operations.doctor.finding import Finding

if TYPE_CHECKING:
    from tenancy.model.tenant import Tenant

__all__ = ["check"]


def check(every: Sequence[Tenant]) -> Iterator[Finding]:
    """Report metadata from before this version, or written past it, that is ignored."""
    for tenant in every:
        for fault, key, effect in (
            (weight_fault(tenant.metadata), "weight", "The runner uses the weight 1."),
            (quotas_fault(tenant.metadata), "quotas", "The tenant has no quotas."),
        ):
            if fault is None:
                continue
            what = f"{tenant.slug!r}: {fault}. {effect}"
            remedy = f"Fix or remove it: tenancy update {tenant.slug} --unset {key}"
            yield Finding(name="limits", level="warning", what=what, remedy=remedy, tenant=tenant.slug)

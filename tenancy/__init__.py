"""Many tenants, each with its own tables, as one fleet.

Start with ``from tenancy import Tenancy``. Names are imported lazily, so that the command line answers ``--help``
without loading a database driver.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenancy.lifecycle.purging import PurgeCertificate
    from tenancy.model.domains import Domain
    from tenancy.model.lifecycle_events import LifecycleEvent
    from tenancy.model.quotas import Quotas
    from tenancy.model.tenant import Tenant, TenantRequest, TenantStatus
    from tenancy.model.usage import Usage
    from tenancy.storage.cross_tenant import TenantTracking
    from tenancy.tenancy import Tenancy

__all__ = [
    "Domain",
    "LifecycleEvent",
    "PurgeCertificate",
    "Quotas",
    "Tenancy",
    "Tenant",
    "TenantRequest",
    "TenantStatus",
    "TenantTracking",
    "Usage",
]

_HOMES = {
    "Domain": "model.domains",
    "LifecycleEvent": "model.lifecycle_events",
    "PurgeCertificate": "lifecycle.purging",
    "Quotas": "model.quotas",
    "TenantRequest": "model.tenant",
    "Tenancy": "tenancy",
    "Tenant": "model.tenant",
    "TenantStatus": "model.tenant",
    "TenantTracking": "storage.cross_tenant",
    "Usage": "model.usage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Many tenants, each with its own tables, as one fleet.

``from tenancy import Tenancy`` is the way in. Names are imported when they are asked for, so that the command line
answers ``--help`` without loading a database.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenancy.creation import Order
    from tenancy.removal import Certificate
    from tenancy.tenancy import Tenancy
    from tenancy.tenant import Tenant, TenantStatus

__all__ = ["Certificate", "Order", "Tenancy", "Tenant", "TenantStatus"]

_HOMES = {
    "Certificate": "removal",
    "Order": "creation",
    "Tenancy": "tenancy",
    "Tenant": "tenant",
    "TenantStatus": "tenant",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

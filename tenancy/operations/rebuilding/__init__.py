"""Rebuild tenants' views beside the serving ones."""

from tenancy.operations.rebuilding.kind import DropReplaced, Rebuild
from tenancy.operations.rebuilding.rebuild import drop_replaced, rebuild_view

__all__ = ["DropReplaced", "Rebuild", "drop_replaced", "rebuild_view"]

"""Rebuild tenants' views beside the serving ones."""

from tenancy.operations.rebuilding.kind import DropReplaced, Rebuild, processes_for
from tenancy.operations.rebuilding.rebuild import REBUILDABLE, drop_replaced, rebuild_view

__all__ = ["REBUILDABLE", "DropReplaced", "Rebuild", "drop_replaced", "processes_for", "rebuild_view"]

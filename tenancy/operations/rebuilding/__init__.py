"""Rebuild views beside the serving ones."""

from tenancy.operations.rebuilding.across import new_rebuild
from tenancy.operations.rebuilding.across_views import VIEWS, AcrossRebuilds
from tenancy.operations.rebuilding.kind import DropReplaced, Rebuild, processes_for
from tenancy.operations.rebuilding.rebuild import REBUILDABLE, drop_replaced, rebuild_view

__all__ = [
    "REBUILDABLE",
    "VIEWS",
    "AcrossRebuilds",
    "DropReplaced",
    "Rebuild",
    "drop_replaced",
    "new_rebuild",
    "processes_for",
    "rebuild_view",
]

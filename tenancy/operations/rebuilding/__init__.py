"""Rebuild tenants' views beside the serving ones."""

from tenancy.operations.rebuilding.rebuild import drop_replaced, rebuild_view

__all__ = ["drop_replaced", "rebuild_view"]

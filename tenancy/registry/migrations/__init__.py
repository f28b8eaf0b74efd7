"""Formats of the registry's tables, and the steps between them."""

from tenancy.registry.migrations.steps import FORMAT, check_format, steps_from

__all__ = ["FORMAT", "check_format", "steps_from"]

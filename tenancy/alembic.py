"""Alembic autogenerate hooks that ignore a fleet's tables, for ``context.configure``. Alembic is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eventsourcing_sqlalchemy.alembic import include_object
from tenancy.errors import RegistryMissing
from tenancy.migrations.place import CREATED_TABLE, VERSION_TABLE
from tenancy.model.tenant import Tenant

if TYPE_CHECKING:
    from tenancy.tenancy import Tenancy

__all__ = ["FleetFilter"]


class FleetFilter:
    """Keeps tenant and registry tables out of generated migrations.

    The constructor reads the registry once; it raises RegistryUnavailable when the registry does not answer.
    """

    def __init__(self, tenants: Tenancy) -> None:
        settings = tenants.settings
        self._schemas = {settings.control_schema} if settings.control_has_schemas else set()
        self._prefixes = set() if settings.control_has_schemas else {f"{settings.control_schema}_"}
        self._adopted: set[str] = set()
        applications, known = _read(tenants)
        for tenant in known:
            placement = tenant.placement
            if placement.owns_schema:
                self._schemas |= {schema for name in applications if (schema := placement.schema_of(name))}
            prefixes = {prefix for name in applications if (prefix := placement.prefix_of(name))}
            (self._adopted if tenant.adopted else self._prefixes).update(prefixes)

    def include_name(self, name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
        """Return False for the fleet's schemas and tables, so that Alembic does not reflect them."""
        if type_ == "schema":
            return name not in self._schemas
        return type_ != "table" or name is None or not name.startswith(tuple(self._prefixes))

    def include_object(self, obj: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
        """Return False for a table that autogenerate would drop although the fleet owns it."""
        if not include_object(obj, name, type_, reflected, compare_to):
            return False
        if type_ != "table" or not reflected or compare_to is not None:
            return True
        if obj.name in (VERSION_TABLE, CREATED_TABLE):
            return False  # of an adopted tenant without a prefix
        return obj.schema not in self._schemas and not obj.name.startswith((*self._prefixes, *self._adopted))


def _read(tenants: Tenancy) -> tuple[list[str], Sequence[Tenant]]:
    try:
        return [application_spec.application for application_spec in tenants.application_specs()], tenants.list()
    except RegistryMissing:
        return [], []  # no tables to ignore yet

"""The environment variables that put a process's applications into one tenant's tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

from eventsourcing_sqlalchemy.settings import Location
from tenancy.model.placement import Placement

if TYPE_CHECKING:
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.settings import TenancySettings

__all__ = ["PERSISTENCE_MODULE", "TENANT", "PlacedTenant", "local_variables", "variables"]

PERSISTENCE_MODULE: Final = "tenancy.persistence"
TENANT: Final = "TENANCY_TENANT"
"""The variable that holds the tenant's id."""


class PlacedTenant(str):
    """A value of TENANCY_TENANT that also carries the objects from which the other variables are rendered.

    The library copies an application's variables before it constructs a factory, so only their values reach the
    factory. Code that expects text gets the tenant's id, and another process gets nothing else.
    """

    __slots__ = ("id", "placement", "settings")

    id: UUID
    placement: Placement
    settings: TenancySettings

    def __new__(cls, tenant_id: UUID, placement: Placement, settings: TenancySettings) -> Self:
        self = super().__new__(cls, tenant_id)
        self.id, self.placement, self.settings = tenant_id, placement, settings
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # pickled for another process

    def location(self, application: str) -> Location:
        """Return where the tables of one of the tenant's applications are."""
        return Location(
            url=self.settings.url,
            connection_creator_topic=self.settings.creator_topic,
            schema=self.placement.schema_of(application),
            table_prefix=self.placement.prefix_of(application),
        )


def variables(
    settings: TenancySettings, placement: Placement, tenant_id: UUID, application_specs: Iterable[ApplicationSpec]
) -> dict[str, str]:
    """Return the variables of a placement for another process, and those that the code passed for all tenants.

    The placement takes precedence over the code and over the process's environment. Each variable is also set for every
    application by name, because an application's own variable takes precedence over a general one. CREATE_TABLE is
    "no": a process that outlives a purged tenant fails instead of creating its tables again.
    """
    return _variables(settings, placement, str(tenant_id), application_specs)


def local_variables(
    settings: TenancySettings, placement: Placement, tenant_id: UUID, application_specs: Iterable[ApplicationSpec]
) -> dict[str, str]:
    """Return the same for an application of this process: its factory takes the placement from a PlacedTenant."""
    return _variables(settings, placement, PlacedTenant(tenant_id, placement, settings), application_specs)


def _variables(
    settings: TenancySettings, placement: Placement, tenant: str, application_specs: Iterable[ApplicationSpec]
) -> dict[str, str]:
    common = {
        "PERSISTENCE_MODULE": PERSISTENCE_MODULE,
        "SQLALCHEMY_URL": settings.url.render_as_string(hide_password=False),
        "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": settings.creator_topic or "",
        "SQLALCHEMY_SCOPED_SESSION_TOPIC": "",
        "SQLALCHEMY_ENGINE_TOPIC": "",
        "CREATE_TABLE": "no",
        TENANT: tenant,
    }
    # Braces are expanded below: the persistence module rejects them.
    result = {
        **settings.given,
        **common,
        "SQLALCHEMY_SCHEMA": placement.schema or "",
        "SQLALCHEMY_TABLE_PREFIX": placement.table_prefix,
        "TENANCY_CONTROL_URL": settings.own_control_url,
        "TENANCY_CONTROL_SCHEMA": settings.control_schema,
    }
    for application_spec in application_specs:
        name, application = application_spec.application.upper(), application_spec.application
        result.update({f"{name}_{key}": value for key, value in common.items()})
        result[f"{name}_SQLALCHEMY_SCHEMA"] = placement.schema_of(application) or ""
        result[f"{name}_SQLALCHEMY_TABLE_PREFIX"] = placement.prefix_of(application)
        # The tables exist already, and have this type.
        result[f"{name}_ORIGINATOR_ID_TYPE"] = application_spec.originator_id_type
        if not application_spec.creates_extra_tables:
            result[f"{name}_IS_SNAPSHOTTING_ENABLED"] = "yes" if "snapshots" in application_spec.tables else "no"
    return result

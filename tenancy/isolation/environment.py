"""The environment variables that put a process's applications into one tenant's tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tenancy.model.placement import Placement

if TYPE_CHECKING:
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.settings import TenancySettings

__all__ = ["PERSISTENCE_MODULE", "variables"]

PERSISTENCE_MODULE: Final = "tenancy.persistence"


def variables(
    settings: TenancySettings, placement: Placement, tenant_id: UUID, application_specs: Iterable[ApplicationSpec]
) -> dict[str, str]:
    """Return the variables of a placement, and those that the code passed for all tenants.

    The placement takes precedence over the code and over the process's environment. Each variable is also set for every
    application by name, because an application's own variable takes precedence over a general one. CREATE_TABLE is
    "no": a process that outlives a purged tenant fails instead of creating its tables again.
    """
    common = {
        "PERSISTENCE_MODULE": PERSISTENCE_MODULE,
        "SQLALCHEMY_URL": settings.url.render_as_string(hide_password=False),
        "SQLALCHEMY_CONNECTION_CREATOR_TOPIC": settings.creator_topic or "",
        "SQLALCHEMY_SCOPED_SESSION_TOPIC": "",
        "SQLALCHEMY_ENGINE_TOPIC": "",
        "CREATE_TABLE": "no",
        "TENANCY_TENANT": str(tenant_id),
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

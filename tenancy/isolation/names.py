"""Where a tenant's tables are: from templates to a placement, and from a placement to variables of applications.

Every new tenant's part of a name is the readable part of its slug and a piece of its id, as in ``acme_k3f9``. The
readable part has no underscore and the piece a fixed length, so no tenant's prefix begins with that of another one;
that no two have the same is seen to by the registry, where placements are unique.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final
from uuid import UUID

from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.naming import EVENTS_INDEX_SUFFIX
from tenancy.model.placement import Placement
from tenancy.model.slugs import readable

if TYPE_CHECKING:
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.settings import TenancySettings

__all__ = ["PERSISTENCE_MODULE", "allocate_placement", "placement_pattern", "variables"]

PERSISTENCE_MODULE: Final = "tenancy.persistence"

_READABLE: Final = 20
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: nothing to misread
_PIECE: Final = 4
# In PostgreSQL, a schema pg_... is the server's.
_RESERVED: Final = ("", "pg")


def allocate_placement(
    settings: TenancySettings, slug: str, tenant_id: UUID, applications: Iterable[str], limit: int | None
) -> Placement:
    """Return where a new tenant's tables go. Its readable part is as short as ``limit``, the most bytes of a name in
    the database, wants for the longest of the ``applications``.

    Raises SettingsError when there is no room for it.
    """
    room = _room(settings, applications, limit)
    label = readable(slug, min(_READABLE, room))
    if label in _RESERVED or label[0].isdigit():
        label = f"t{label}"[: max(room, 1)]
    tenant = f"{label}_{_piece(tenant_id)}"
    template, prefix = settings.schema or "", settings.table_prefix.replace("{tenant}", tenant)
    return Placement(template.replace("{tenant}", tenant) or None, prefix, owns_schema="{tenant}" in template)


def _piece(tenant_id: UUID) -> str:
    number = tenant_id.int
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 5 * _PIECE, 5))


def placement_pattern(template: str) -> re.Pattern[str]:
    """Return what matches the names that a template with ``{tenant}`` stands for; the tenant's part is the group
    ``tenant``.
    """
    first, *rest = map(re.escape, template.split("{tenant}"))
    part = f"(?P<tenant>[a-z][a-z0-9]*_[{_ALPHABET}]{{{_PIECE}}})"
    return re.compile("(?P=tenant)".join([f"{first}{part}{rest[0]}", *rest[1:]]) if rest else first)


def _room(settings: TenancySettings, applications: Iterable[str], limit: int | None) -> int:
    if limit is None:
        return _READABLE
    room = _READABLE
    piece = "{tenant}", "_" + "0" * _PIECE
    for application in applications:
        table = Placement(None, settings.table_prefix).prefix_of(application) + application.lower() + "_events"
        schema = Placement(settings.schema, "").schema_of(application) or ""
        for name in (table + EVENTS_INDEX_SUFFIX, schema):
            count = name.count("{tenant}")
            left = limit - len(name.replace(*piece).encode())
            if left < count:
                msg = (
                    f"The name of the application {application!r} leaves no room for a tenant in names of at most "
                    f"{limit} bytes. Shorten it, TENANCY_SCHEMA or TENANCY_TABLE_PREFIX."
                )
                raise SettingsError(msg, variable="TENANCY_TABLE_PREFIX")
            room = min(room, left // count) if count else room
    return room


def variables(
    settings: TenancySettings, placement: Placement, tenant_id: UUID, application_specs: Iterable[ApplicationSpec]
) -> dict[str, str]:
    """Return the variables that put applications into a placement, whatever else the process's variables say, and those
    that the code passed for all tenants.

    Those of the placement take precedence. Each is there with the name of every application before it: a variable for
    all loses to one for an application that the process may have. Tables are not made: a process that is left over
    from a purged tenant fails instead of bringing them back.
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
    # Braces were expanded here, or are none: in the persistence module they would be errors.
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
        # The tables are of this kind, and made already.
        result[f"{name}_ORIGINATOR_ID_TYPE"] = application_spec.originator_id_type
        if not application_spec.creates_extra_tables:
            result[f"{name}_IS_SNAPSHOTTING_ENABLED"] = "yes" if "snapshots" in application_spec.tables else "no"
    return result

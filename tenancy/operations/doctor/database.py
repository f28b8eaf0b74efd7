"""Check the database: whether it answers, the driver, a pooler, and the rights of the role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import PersistenceError

from tenancy.operations.doctor.finding import Finding, Level
from tenancy.registry.remedies import remedy_of

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.dialects.protocols import Right
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["check_answers", "check_connection", "check_rights", "is_unreachable"]


def is_unreachable(findings: Sequence[Finding]) -> bool:
    """Return whether a database did not answer, so that nothing else was examined."""
    return any(finding.name == "database" and finding.level == "failure" for finding in findings)


def check_answers(fleet: Fleet) -> Iterator[Finding]:
    """Yield whether the databases of the tenants and of the registry answer, up to the first that does not."""
    shard, registry = fleet.shard.datastore, fleet.registry.datastore
    is_one = fleet.settings.registry_is_beside
    for what, datastore in (("tenants", shard), ("registry", registry)):
        if is_one and datastore is registry:
            return
        try:
            version = datastore.run(datastore.dialect.server_version)
        except PersistenceError as error:
            remedy = remedy_of(error) or ("Start the server, and check SQLALCHEMY_URL, its password and the network.")
            yield Finding(name="database", level="failure", what=f"It does not answer: {error}.", remedy=remedy)
            return
        of = "tenants and registry" if is_one else what
        yield Finding(name="database", level="ok", what=f"{version} answers ({of}): {datastore.shared}.")


def check_connection(fleet: Fleet) -> Iterator[Finding]:
    """Yield the driver, and whether a pooler is in use."""
    datastore = fleet.shard.datastore
    dialect = datastore.dialect
    version = getattr(datastore.engine.dialect.dbapi, "__version__", "").partition(" ")[0]
    yield Finding(name="driver", level="ok", what=f"{dialect.driver} {version}".rstrip() + ".")
    if not dialect.is_server:
        return
    with datastore.get_connection() as connection:
        is_pooled = dialect.is_behind_pooler(connection.connection.dbapi_connection)
    if not is_pooled:
        yield Finding(name="pooler", level="ok", what="No pooler: the server answers directly.")
    elif datastore.settings.listen_url is not None:
        yield Finding(name="pooler", level="ok", what="A pooler is in use; wake-ups use a direct connection.")
    else:
        remedy = "Set SQLALCHEMY_LISTEN_URL to the server's own address. Until then, followers poll."
        yield Finding(name="pooler", level="warning", what="A pooler is in use.", remedy=remedy)


def check_rights(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Yield what this role may not do, with the statement that allows it."""
    datastore = fleet.shard.datastore
    schemas = {
        spec.name.schema
        for tenant in every
        for spec in fleet.inventory.specs(tenant.placement, fleet.application_specs())
    }
    missing = datastore.run(lambda executor: datastore.dialect.missing_rights(executor, sorted(schemas, key=str)))
    if not missing:
        yield Finding(name="rights", level="ok", what="This role may create tenants, read and write.")
    for right, remedy in missing.items():
        what, level = _RIGHTS[right]
        yield Finding(name="rights", level=level, what=f"This role may not {what}.", remedy=f"If it should: {remedy}")


# A role that serves tenants may lack the right to create them, and a role that reads the right to write.
_RIGHTS: Final[Mapping[Right, tuple[str, Level]]] = {
    "create": ("create schemas and tables, so it cannot create tenants", "warning"),
    "write": ("write to all tables of tenants", "warning"),
    "read": ("read all tables of tenants", "failure"),
}

"""Create tenants' tables and schemas in a shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from eventsourcing_sqlalchemy import migrations, provisioning
from eventsourcing_sqlalchemy.naming import TableName
from tenancy.errors import TenancyError
from tenancy.isolation.environment import local_variables
from tenancy.model.placement import Placement
from tenancy.model.tenant import Tenant
from tenancy.storage.extra_tables import construct

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.storage.inventory import ShardInventory
    from tenancy.storage.shard import Shard

__all__ = ["Provisioner"]


class Provisioner:
    """Creates tables in one shard. Safe to use from many threads."""

    def __init__(self, shard: Shard, inventory: ShardInventory) -> None:
        self._shard = shard
        self._inventory = inventory

    def create_tables(
        self, placements: Sequence[Placement], application_specs: Sequence[ApplicationSpec], session: Session
    ) -> None:
        """Create the missing tables and schemas of tenants.

        ``session`` is the registry's: its transaction has locked the tenants.

        Raises ProgrammingError for a missing right, which says what to grant, and for a table of another shape.
        """
        specs = [spec for placement in placements for spec in self._inventory.specs(placement, application_specs)]
        if not specs:
            return
        datastore = self._shard.datastore
        if not self._shard.is_file_of_registry:
            provisioning.create_many(datastore, specs)
            return
        statements = [statement for spec in specs for statement in spec.ddl(type(datastore.engine.dialect))]
        datastore.run_in_session(session, lambda executor: executor.run_script(statements), savepoint=False)

    def migrate_tables(
        self,
        placement: Placement,
        application_specs: Sequence[ApplicationSpec],
        session: Session,
        *,
        lock_timeout: float,
    ) -> None:
        """Migrate a tenant's own tables to the head, all or none.

        ``session`` is as in :meth:`create_tables`. Raises OperationalError when a lock is not granted in
        ``lock_timeout`` seconds, and ProgrammingError for a table that cannot be migrated.
        """
        specs = self._inventory.specs(placement, application_specs)
        datastore = self._shard.datastore
        if not specs:
            return
        if self._shard.is_file_of_registry:
            work = partial(migrations.migrate_in, dialect=datastore.dialect, specs=specs)
            datastore.run_in_session(session, work, savepoint=False)
        else:
            migrations.migrate(datastore, specs, lock_timeout=lock_timeout)

    def create_extra_tables(self, tenants: Sequence[Tenant], application_specs: Iterable[ApplicationSpec]) -> None:
        """Construct, once for each tenant, the applications and views that create tables of their own.

        Raises TenancyError for a table outside of its tenant's placement, and when the constructed code fails.
        """
        creators = [application_spec for application_spec in application_specs if application_spec.creates_extra_tables]
        for tenant in tenants if creators else ():
            environment = {
                **self._shard.settings.environment,
                **local_variables(self._shard.settings, tenant.placement, tenant.id, creators),
            }
            for prefix in ("", *(f"{creator.application.upper()}_" for creator in creators)):
                environment[f"{prefix}PERSISTENCE_MODULE"] = "tenancy.isolation.factory"
                environment[f"{prefix}CREATE_TABLE"] = "yes"
            before = self._around(tenant.placement, creators)
            for application_spec in creators:
                look = partial(self._check_placement, tenant, "is created by", [application_spec])
                construct(application_spec, environment, look)
            # Their code may also create tables with SQL, which SQLAlchemy does not report.
            for name in self._around(tenant.placement, creators) - before:
                if not self._inventory.is_tenant_name(name):
                    self._check_placement(tenant, "appeared with", creators, name)

    def _around(self, placement: Placement, application_specs: Iterable[ApplicationSpec]) -> set[TableName]:
        """Return the tables of all schemas that a tenant's new tables may share with other tables."""
        schemas = {self._shard.default_schema}
        if not placement.owns_schema:
            schemas |= {placement.schema_of(application_spec.application) for application_spec in application_specs} - {
                None
            }
        relations = self._shard.datastore.dialect.relations
        return {
            TableName(schema, name)
            for schema in schemas
            for _, name in self._shard.datastore.run(partial(relations, schema=schema, prefix=""))
        }

    def _check_placement(self, tenant: Tenant, verb: str, creators: Sequence[ApplicationSpec], name: TableName) -> None:
        """Raise TenancyError for a table that one of ``creators`` creates outside of the tenant's placement."""
        name = replace(name, schema=name.schema or self._shard.default_schema)
        if self._inventory.covers(replace(tenant, adopted=False), name, ()):
            return
        whose = " or ".join(
            f"the {'view' if creator.view else 'recorder'} of {creator.application!r}" for creator in creators
        )
        what = "A table of another tenant" if self._inventory.is_tenant_name(name) else f"The table {name}"
        msg = f"{what} {verb} {whose}. It is outside of the tenant's placement: tenants would share it."
        remedy = (
            "Create it with own_table() of the view, or in the recorder's schema with a name that starts with the name "
            "of the recorder's table. Drop this one if it is unused, then run: tenancy doctor --repair"
        )
        raise TenancyError(msg, remedy=remedy)  # no tenant: the error is about the code

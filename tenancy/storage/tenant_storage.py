"""Make, look at and remove what a tenant has in the database: its tables, and the schemas they are in."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from eventsourcing.persistence import OperationalError, ProgrammingError
from eventsourcing.utils import Environment, resolve_topic

from eventsourcing_sqlalchemy import provisioning, sequences
from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.engines.executors import ConnectionExecutor
from eventsourcing_sqlalchemy.errors import sqlstate
from eventsourcing_sqlalchemy.naming import TableName, quote
from eventsourcing_sqlalchemy.settings import Settings
from eventsourcing_sqlalchemy.tables import TableSpec, missing_tables
from tenancy.errors import TenancyClosed, TenancyError
from tenancy.isolation.names import placement_pattern, variables
from tenancy.model.placement import Placement
from tenancy.model.tenant import Tenant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from eventsourcing_sqlalchemy.dialects.protocols import Executor, RelationKind, SequenceBehind
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.settings import TenancySettings

__all__ = ["Inventory", "TenantStorage"]

# Dropping takes several locks for each table, out of a table of locks that all clients of the server share.
_TABLES_PER_DROP: Final = 20
# How long a tenant's last transactions may go on when its tables are to be dropped. Seconds.
_PATIENCE: Final = 60.0
# Not available in time, and taken in a ring.
_LOCKED: Final = ("55P03", "40P01")
_OF_OTHERS: Final = ("SCHEMA", "TABLE_PREFIX", "SCOPED_SESSION_TOPIC", "ENGINE_TOPIC", "CONNECTION_CREATOR_TOPIC")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is of a tenant in the database."""

    schemas: tuple[str, ...] = ()
    relations: tuple[tuple[RelationKind, TableName], ...] = ()
    """Tables, views and what else has rows, each with what it is."""

    def __bool__(self) -> bool:
        return bool(self.schemas or self.relations)

    def of(self, *kinds: RelationKind) -> list[TableName]:
        """Return the relations of some kinds."""
        return [name for kind, name in self.relations if kind in kinds]

    def count(self) -> dict[str, int]:
        """Return how many there are."""
        return {
            "schemas": len(self.schemas),
            "tables": len(self.of("table", "foreign table")),
            "views": len(self.of("view", "materialized view")),
            "sequences": len(self.of("sequence")),
        }


class TenantStorage:
    """The database of the tenants. Safe to use from many threads."""

    def __init__(self, settings: TenancySettings) -> None:
        self._settings = settings
        environment = {
            key: value
            for key, value in settings.environment.items()
            if key.startswith("SQLALCHEMY_") and not key.endswith(_OF_OTHERS)
        }
        options: dict[str, Any] = {"settings": Settings.read(Environment("", environment)).engine}
        if settings.creator_topic is not None:
            options["creator"] = resolve_topic(settings.creator_topic)
        self._datastore = SQLAlchemyDatastore(url=settings.url, **options)
        self._is_closed = False
        dialect = self._datastore.dialect
        # One file has one writer: the registry's transaction, when it is in the same file.
        self.is_file_of_registry = not dialect.is_server and dialect.identity(settings.url) == dialect.identity(
            settings.control_url
        )

    def close(self) -> None:
        """Give the engine back; a second time does nothing."""
        self._is_closed = True
        self._datastore.close()

    @property
    def datastore(self) -> SQLAlchemyDatastore:
        """The connections of the tenants' database; raises TenancyClosed after close()."""
        if self._is_closed:
            raise TenancyClosed
        return self._datastore

    @property
    def identifier_limit(self) -> int | None:
        """The most bytes that a name may have in this database."""
        return self.datastore.dialect.identifier_limit

    # -- making --

    def make(
        self, placements: Sequence[Placement], application_specs: Sequence[ApplicationSpec], session: Session
    ) -> None:
        """Make the tables of tenants, and their schemas, where they do not exist; ``session`` is the registry's, in
        whose transaction the tenants are locked.

        Raises ProgrammingError for a missing right, which says what to grant, and for a table of another shape.
        """
        specs = [spec for placement in placements for spec in self.specs(placement, application_specs)]
        if not specs:
            return
        if not self.is_file_of_registry:
            provisioning.make_many(self.datastore, specs)
            return
        dialect = self.datastore.engine.dialect
        executor = ConnectionExecutor(session.connection())
        executor.run_script([statement for spec in specs for statement in spec.ddl(type(dialect))])

    def create_extra_tables(self, tenants: Sequence[Tenant], application_specs: Iterable[ApplicationSpec]) -> None:
        """Construct those applications and views that make tables of their own, once, in the places of tenants.

        Raises TenancyError for a table that would be outside of its tenant's place, and where their code fails.
        """
        makers = [application_spec for application_spec in application_specs if application_spec.creates_extra_tables]
        for tenant in tenants if makers else ():
            environment = {
                **self._settings.environment,
                **variables(self._settings, tenant.placement, tenant.id, makers),
            }
            for begin in ("", *(f"{maker.application.upper()}_" for maker in makers)):
                environment[f"{begin}PERSISTENCE_MODULE"] = "eventsourcing_sqlalchemy"
                environment[f"{begin}CREATE_TABLE"] = "yes"
            before = self._around(tenant.placement, makers)
            for application_spec in makers:
                application_spec.construct(
                    environment, partial(self._check_place, tenant, "is made by", [application_spec])
                )
            # What SQLAlchemy has not made, a statement of theirs may have.
            for name in self._around(tenant.placement, makers) - before:
                if not self._is_tenant_name(name):
                    self._check_place(tenant, "appeared with", makers, name)

    def _around(self, placement: Placement, application_specs: Iterable[ApplicationSpec]) -> set[TableName]:
        """Return what there is in the schemas where a tenant's tables, and those that name no schema, are beside those
        of others.
        """
        schemas = {self.datastore.default_schema()}
        if not placement.owns_schema:
            schemas |= {placement.schema_of(application_spec.application) for application_spec in application_specs} - {
                None
            }
        look = self.datastore.dialect.relations
        return {
            TableName(schema, name)
            for schema in schemas
            for _, name in self.datastore.run(partial(look, schema=schema, prefix=""))
        }

    def _check_place(self, tenant: Tenant, why: str, makers: Sequence[ApplicationSpec], name: TableName) -> None:
        """Raise TenancyError for a table, of one of these, that is not in the place of the tenant."""
        name = replace(name, schema=name.schema or self.datastore.default_schema())
        if self.covers(replace(tenant, adopted=False), name, ()):
            return
        whose = " or ".join(f"the {'view' if maker.view else 'recorder'} of {maker.application!r}" for maker in makers)
        what = "A table of another tenant" if self._is_tenant_name(name) else f"The table {name}"
        msg = f"{what} {why} {whose}. It is outside of the tenant's place: tenants would share it."
        remedy = (
            "Make it as docs/following.md does, with own_table() of a view, or in the schema of the recorder with a "
            "name that begins with that of its table; drop this one if it is in nobody's use. "
            "Then: tenancy doctor --repair"
        )
        raise TenancyError(msg, remedy=remedy)  # about the code, and so about no tenant

    def _is_tenant_name(self, name: TableName) -> bool:
        """Return whether a table is, by the templates for new tenants, in the place of some tenant."""
        settings = self._settings
        template = f"{settings.schema or self.datastore.default_schema() or ''}\0{settings.table_prefix}"
        pattern = placement_pattern(template).pattern.replace(re.escape("{application}"), ".+")
        return re.fullmatch(f"{pattern}.*", f"{name.schema or ''}\0{name.name}", re.DOTALL) is not None

    def check(self, placement: Placement) -> None:
        """Raise TenancyError for a placement that no tenant can have in this database."""
        if placement.schema is not None and not self.datastore.dialect.has_schemas:
            msg = f"The schema {placement.schema!r} cannot be used: this database has no schemas."
            raise TenancyError(msg, remedy="Give the prefix of the tables' names instead.")
        for template in (placement.schema or "", placement.table_prefix):
            if "{" in template.replace("{application}", "") or "}" in template.replace("{application}", ""):
                msg = f"{template!r} cannot be used: the only placeholder is {{application}}."
                raise TenancyError(msg, remedy="Remove the other braces.")

    def specs(self, placement: Placement, application_specs: Iterable[ApplicationSpec]) -> list[TableSpec]:
        """Return the tables that a tenant is to have."""
        default = None if placement.schema else self.datastore.default_schema()
        return [spec for application_spec in application_specs for spec in application_spec.specs(placement, default)]

    def missing(self, placement: Placement, application_specs: Iterable[ApplicationSpec]) -> list[TableSpec]:
        """Return the tables that a tenant lacks; raises ProgrammingError for one of another shape."""
        specs = self.specs(placement, application_specs)
        names = [spec.name for spec in specs]
        look = self.datastore.dialect.describe
        return missing_tables(specs, self.datastore.run(lambda executor: look(executor, names)))

    def faults(
        self, tenants: Sequence[Tenant], application_specs: Sequence[ApplicationSpec]
    ) -> Iterator[tuple[Tenant, str]]:
        """Yield a description for each tenant whose tables are not as they should be; asks the database once."""
        shapes = self.datastore.run(self.datastore.dialect.describe_all)
        for tenant in tenants:
            try:
                missing = missing_tables(self.specs(tenant.placement, application_specs), shapes)
            except ProgrammingError as error:
                yield tenant, str(error)
            else:
                if missing:
                    names = ", ".join(str(spec.name) for spec in missing)
                    yield tenant, f"missing: {names}"

    def sequences_behind(
        self, tenants: Sequence[Tenant], application_specs: Sequence[ApplicationSpec]
    ) -> list[tuple[Tenant, SequenceBehind]]:
        """Return the sequences that are behind the ids of their tables, each with its tenant, in few queries."""
        owners = {
            spec.name: tenant
            for tenant in tenants
            for spec in self.specs(tenant.placement, application_specs)
            if spec.kind == "events"
        }
        return [(owners[counter.table], counter) for counter in sequences.find_behind(self.datastore, list(owners))]

    def orphans(self, tenants: Sequence[Tenant], application_specs: Sequence[ApplicationSpec]) -> list[str]:
        """Return where, by the templates for new tenants, there seem to be tables of a tenant that is none of these;
        asks the database once.
        """
        settings = self._settings
        template = Placement(settings.schema, settings.table_prefix)
        owned = {spec.name for tenant in tenants for spec in self.specs(tenant.placement, application_specs)}
        patterns = [
            placement_pattern(f"{spec.name.schema or ''}\0{spec.name.name}")
            for spec in self.specs(template, application_specs)
        ]
        found = set()
        for table in set(self.datastore.run(self.datastore.dialect.describe_all)) - owned:
            for match in filter(None, (each.fullmatch(f"{table.schema or ''}\0{table.name}") for each in patterns)):
                found.add(str(template).replace("{tenant}", match["tenant"]))
        return sorted(found)

    # -- looking --

    def inventory(self, tenant: Tenant, application_specs: Sequence[ApplicationSpec]) -> Inventory:
        """Return what there is of a tenant: everything in its schemas, everything with its prefix. Of an adopted one,
        whose schema others may use too, only what its applications and views own.
        """
        if tenant.adopted:
            found = self._in_adopted(tenant.placement, application_specs)
            return Inventory(
                relations=tuple(each for each in found if self.owns(tenant.placement, each[1], application_specs))
            )
        return self.datastore.run(lambda executor: self._inventory(executor, tenant.placement))

    def others(
        self, tenant: Tenant, application_specs: Sequence[ApplicationSpec], tenants: Iterable[Tenant]
    ) -> tuple[str, ...]:
        """Return the names of what is in the place of an adopted tenant and neither its own nor of the fleet: of the
        registry, or of one of ``tenants``. Where everything in a place is the tenant's, that is nothing.
        """
        if not tenant.adopted:
            return ()
        fleet = [each for each in tenants if each.id != tenant.id]
        left = [
            str(name)
            for _, name in self._in_adopted(tenant.placement, application_specs)
            if not self.owns(tenant.placement, name, application_specs)
            and not self._is_of_registry(name)
            and not any(self.covers(each, name, application_specs) for each in fleet)
        ]
        schemas = {
            tenant.placement.schema_of(application_spec.application) for application_spec in application_specs
        } - {None}
        there = self.datastore.run(lambda executor: self.datastore.dialect.schemas(executor, ""))
        return (*(f"schema {quote(name)}" for name in there if name in schemas), *left)

    def _in_adopted(
        self, placement: Placement, application_specs: Iterable[ApplicationSpec]
    ) -> list[tuple[RelationKind, TableName]]:
        """Return what is in the schemas of an adopted tenant's applications, with their prefixes."""
        storage = {
            (placement.schema_of(name) or self.datastore.default_schema(), placement.prefix_of(name))
            for name in (application_spec.application for application_spec in application_specs)
        }
        look = self.datastore.dialect.relations
        found = {
            (kind, TableName(schema, name))
            for schema, prefix in storage
            for kind, name in self.datastore.run(partial(look, schema=schema, prefix=prefix))
        }
        return sorted(found, key=lambda each: str(each[1]))

    def owns(self, placement: Placement, name: TableName, application_specs: Iterable[ApplicationSpec]) -> bool:
        """Return whether a relation is by its name one that applications or views own in an adopted place."""
        default, limit = self.datastore.default_schema(), self.identifier_limit
        return any(application_spec.owns(placement, default, name, limit) for application_spec in application_specs)

    def _is_of_registry(self, name: TableName) -> bool:
        schema = self._settings.control_schema
        if self._settings.control_has_schemas:
            return name.schema == schema
        return name.name.startswith(f"{schema}_")

    def _inventory(self, executor: Executor, placement: Placement) -> Inventory:
        dialect = self.datastore.dialect
        schemas: list[str] = []
        if placement.schema is not None:
            is_ours = _pattern(placement.schema)
            schemas = [name for name in dialect.schemas(executor, _head(placement.schema)) if is_ours.fullmatch(name)]
        prefix = "" if placement.owns_schema else _head(placement.table_prefix)
        has_prefix = _pattern("" if placement.owns_schema else placement.table_prefix, and_more=True)
        relations = [
            (kind, TableName(schema, name))
            for schema in (schemas if placement.schema is not None else [self.datastore.default_schema()])
            for kind, name in dialect.relations(executor, schema, prefix)
            if has_prefix.fullmatch(name)
        ]
        return Inventory(tuple(schemas) if placement.owns_schema else (), tuple(relations))

    def covers(self, tenant: Tenant, name: TableName, application_specs: Sequence[ApplicationSpec]) -> bool:
        """Return whether a table is, or would be if it were there, among the :func:`inventory` of a tenant."""
        placement = tenant.placement
        if tenant.adopted:
            return self.owns(placement, name, application_specs)
        if placement.schema is None:
            is_there = name.schema == self.datastore.default_schema()
        else:
            is_there = name.schema is not None and _is_one(name.schema, placement.schema)
        return is_there and (placement.owns_schema or _is_one(name.name, placement.table_prefix, and_more=True))

    # -- removing --

    def drop(self, tenant: Tenant, application_specs: Sequence[ApplicationSpec]) -> Inventory:
        """Drop all that there is of a tenant, in batches, and return what that was. Done again after a crash, it drops
        the rest.

        Raises TenancyError when transactions of the tenant go on for too long; nothing is lost then but time.
        """
        there = self.inventory(tenant, application_specs)
        at_once, cascade = (_TABLES_PER_DROP, " CASCADE") if self.datastore.dialect.has_schemas else (1, "")
        kinds: tuple[RelationKind, ...] = ("view", "materialized view", "table", "foreign table", "sequence")
        for kind in kinds:
            names = there.of(kind)
            for start in range(0, len(names), at_once):
                batch = ", ".join(map(str, names[start : start + at_once]))
                self._drop(tenant, f"DROP {kind.upper()} IF EXISTS {batch}{cascade}")
        for schema in there.schemas:
            self._drop(tenant, f"DROP SCHEMA IF EXISTS {quote(schema)}{cascade}")
        return there

    def _drop(self, tenant: Tenant, statement: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with self.datastore.transaction() as session:
                    self.datastore.run_in_session(session, lambda executor: executor.fetch(statement), savepoint=False)
            except OperationalError as error:
                if self.datastore.dialect.is_server and sqlstate(error) not in _LOCKED:
                    raise
                if time.monotonic() > deadline:
                    msg = f"The tables of tenant {tenant.slug!r} are in use: {error}."
                    remedy = f"End the transactions that use them, and go on: tenancy purge {tenant.slug}"
                    raise TenancyError(msg, remedy=remedy, tenant=tenant.slug) from error
            else:
                return


def _head(template: str) -> str:
    """Return how all names begin that a template of a placement stands for."""
    return template.partition("{application}")[0]


def _pattern(template: str, *, and_more: bool = False) -> re.Pattern[str]:
    """Return what matches the names that a template of a placement stands for, with any application."""
    parts = map(re.escape, template.split("{application}"))
    return re.compile(".+".join(parts) + (".*" if and_more else ""), re.DOTALL)


def _is_one(name: str, template: str, *, and_more: bool = False) -> bool:
    # Most names are of others: then no pattern is made.
    return name.startswith(_head(template)) and _pattern(template, and_more=and_more).fullmatch(name) is not None

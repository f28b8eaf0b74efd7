"""Tenants for tests, in about a millisecond: places with tables are created once, and emptied instead of dropped.

A claimed place gets a tenant with an id and a history of its own, so nothing that a test has kept of an earlier tenant
reaches it. Only for a throw-away database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError

from eventsourcing_sqlalchemy.naming import TableName
from tenancy.errors import TenantExists
from tenancy.isolation.strategy import allocate_placement
from tenancy.lifecycle.completion import Completion
from tenancy.lifecycle.hooks import Hooks
from tenancy.migrations.place import VERSION_TABLE
from tenancy.model.slugs import normalize
from tenancy.model.tenant import Action, Tenant, TenantRequest, TenantStatus
from tenancy.registry.history import History
from tenancy.registry.tables import to_row, to_tenant

if TYPE_CHECKING:
    from tenancy.model.placement import Placement
    from tenancy.model.versions import Versions
    from tenancy.tenancy import Tenancy

__all__ = ["TenantPool"]

# The first and the largest number of places that are created at a time.
_FIRST: Final = 2
_MOST: Final = 16
_FOREIGN_KEYS: Final = """
SELECT c.oid FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class r ON r.oid = c.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace WHERE c.contype = 'f' AND n.nspname = %s LIMIT 1
"""
_SEQUENCES: Final = """
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND n.nspname = %s
"""


class _Place(NamedTuple):
    """A placement whose tables exist."""

    placement: Placement
    versions: Versions
    empty: tuple[str, ...] | None
    """The statements that empty it; None for a place that cannot be used again."""


class _NoHooks(Hooks):
    """A place is created without hooks: they run when it gets its tenant."""

    def check(self) -> None:
        pass

    def apply_to(self, tenant: Tenant) -> bool:
        return False


class TenantPool:
    """The places of a test session. Used by one test at a time."""

    def __init__(self, tenants: Tenancy) -> None:
        self._tenants = tenants
        self._fleet = tenants.fleet
        self._registry = self._fleet.registry
        self._shard = self._fleet.shard
        self._free: list[_Place] = []
        self._used: list[_Place] = []
        self._by_placement: dict[Placement, _Place] = {}

    def claim(self, slug: str, *, name: str | None = None, metadata: Mapping[str, Any] | None = None) -> Tenant:
        """Return a new active tenant, whose hooks have run. Raises HookFailed, and TenantExists."""
        place = self._take()
        request = TenantRequest(slug=slug, name=name, metadata=dict(metadata or {}))
        new = Tenant.requested(request, uuid4(), normalize(slug), place.placement, place.versions)
        has_hooks = self._fleet.hooks.apply_to(new)
        if not has_hooks:
            new = replace(new, status=TenantStatus.ACTIVE)
        history = History.register(new.id, Action.CREATE, None)
        if not has_hooks:
            history.change(str(Action.ACTIVATE), str(TenantStatus.ACTIVE), None)
        try:
            with self._registry.writing_rows() as session:
                session.execute(sa.insert(self._registry.rows.tenants), [to_row(new)])
                self._registry._application.save(history)  # noqa: SLF001 (a part of the package)
        except IntegrityError:
            self._free.append(place)
            msg = f"Tenant {new.slug!r} already exists."
            raise TenantExists(msg, remedy="Choose another slug.", tenant=new.slug) from None
        self._fleet.changed(new)
        if has_hooks:
            return self._tenants.complete(new)
        return replace(new, tenancy=self._tenants)

    def clear(self) -> None:
        """Remove all tenants, however they were created, and everything that is recorded about any tenant."""
        every = self._erase()
        for tenant in every:
            for projection in self._fleet.cross_tenant:
                projection.forget(tenant)
            self._fleet.application_cache.forget(tenant.id)
            self._fleet.changed(tenant)
            place = self._by_placement.get(tenant.placement) or self._place_of(tenant)
            if place is not None and place.empty is not None and self._is_whole(tenant):
                self._by_placement[place.placement] = place
                self._used.append(place)
            else:
                self._by_placement.pop(tenant.placement, None)
                self._fleet.remover.drop(tenant, self._fleet.application_specs())

    def _is_whole(self, tenant: Tenant) -> bool:
        """Return whether the tenant's tables are those of a new tenant."""
        is_served = tenant.status not in (TenantStatus.PROVISIONING, TenantStatus.PURGING)
        head = self._fleet.head_versions()
        versions = tenant.versions
        is_new = (versions.tables, versions.created, versions.views) == (head.tables, head.created, head.views)
        return is_served and is_new and tuple(versions.migrations) == tuple(self._fleet.migrator.heads())

    def _take(self) -> _Place:
        if not self._free and self._used:
            statements = [statement for place in self._used for statement in place.empty or ()]
            self._shard.datastore.run(lambda executor: executor.run_script(statements))
            self._free, self._used = self._used, []
        if not self._free:
            self._create(min(_MOST, max(_FIRST, len(self._by_placement))))
        return self._free.pop()

    # -- places --

    def _create(self, count: int) -> None:
        self._fleet.provisioning.init()
        settings, limit = self._fleet.settings, self._shard.identifier_limit
        names = [spec.application for spec in self._fleet.application_specs()]
        head = self._fleet.head_versions()
        new = []
        for _ in range(count):
            tenant_id = uuid4()
            slug = f"pool-{tenant_id.hex[:12]}"
            placement = allocate_placement(settings, slug, tenant_id, names, limit)
            new.append(Tenant.requested(TenantRequest(slug=slug), tenant_id, slug, placement, head))
        completion = Completion(
            self._registry,
            shard=self._shard,
            provisioner=self._fleet.provisioner,
            migrator=self._fleet.migrator,
            remover=self._fleet.remover,
            hooks=_NoHooks(self._registry),
            application_specs=self._fleet.application_specs,
            head=self._fleet.head_versions,
            changed=self._fleet.changed,
        )
        self._registry.add(new, None)
        for tenant in completion.complete_each(new, None):
            assert isinstance(tenant, Tenant)
            place = self._place_of(tenant)
            assert place is not None
            self._by_placement[place.placement] = place
            self._free.append(place)
        self._erase_places(new)
        for tenant in new:
            self._fleet.changed(tenant)

    def _place_of(self, tenant: Tenant) -> _Place | None:
        """Return the place of a tenant; None for tables that are not the fleet's own."""
        if tenant.adopted or tenant.status in (TenantStatus.PROVISIONING, TenantStatus.PURGING):
            return None
        specs = self._fleet.application_specs()
        relations = self._fleet.inventory.of_tenant(tenant, specs)
        own = {spec.name for spec in self._fleet.inventory.specs(tenant.placement, specs)}
        tables = [each for each in relations.of("table") if VERSION_TABLE not in each.name]
        empty: tuple[str, ...] | None = tuple(self._emptying(tables))
        if self._fleet.migrator.is_configured and self._has_rows(set(tables) - own):
            empty = None  # its migrations have recorded something that a new tenant has
        return _Place(tenant.placement, tenant.versions, empty)

    def _has_rows(self, tables: Iterable[TableName]) -> bool:
        with self._shard.datastore.transaction(commit=False) as session:
            return any(session.execute(sa.text(f"SELECT 1 FROM {each} LIMIT 1")).first() for each in tables)  # noqa: S608

    def _emptying(self, tables: Sequence[TableName]) -> list[str]:
        """Return the statements that empty tables, and let their ids begin with 1."""
        if not self._shard.datastore.dialect.has_schemas:
            names = ", ".join(f"'{each.name}'" for each in tables)
            counters = f"DELETE FROM sqlite_sequence WHERE name IN ({names})"  # noqa: S608 (names of our own)
            return [*(f"DELETE FROM {each}" for each in tables), counters]  # noqa: S608 (as above)
        schemas = {each.schema for each in tables}
        starts = tuple(each.name for each in tables)
        with self._shard.datastore.transaction(commit=False) as session:
            connection = session.connection()
            has_keys = any(connection.exec_driver_sql(_FOREIGN_KEYS, (each,)).first() for each in schemas)
            sequences = [
                TableName(schema, name)
                for schema in schemas
                for (name,) in connection.exec_driver_sql(_SEQUENCES, (schema,))
                if name.startswith(starts)
            ]
        if has_keys:
            return [f"TRUNCATE {', '.join(map(str, tables))} RESTART IDENTITY"]
        texts = [str(each).replace("'", "''") for each in sequences]
        restarts = [f"SELECT pg_catalog.setval('{text}', 1, false)" for text in texts]
        return [*(f"DELETE FROM {each}" for each in tables), *restarts]  # noqa: S608 (as above)

    # -- the registry --

    def _erase(self) -> Sequence[Tenant]:
        """Delete everything that the registry has of tenants, jobs included; return the tenants."""
        rows, datastore = self._registry.rows, self._registry.datastore
        kept = {
            rows.tenants,
            rows.fleet_settings,
            rows.encodings,
            rows.reactions,
            rows.leases,
            rows.processes,
            rows.process_leases,
        }
        tables = [table for table in rows.metadata.sorted_tables if table not in kept]
        names = [TableName(table.schema, table.name) for table in tables]
        names += [spec.name for spec in self._registry._recorder.tables]  # noqa: SLF001 (a part of the package)
        script = [f"DELETE FROM {each}" for each in names]  # noqa: S608 (names of our own)
        with self._registry.writing_rows() as session:
            every = [to_tenant(row) for row in session.execute(sa.delete(rows.tenants).returning(rows.tenants))]
        datastore.run(lambda executor: executor.run_script(script))  # in one round trip, where there are any
        return every

    def _erase_places(self, tenants: Sequence[Tenant]) -> None:
        """Delete the registry's rows and events of tenants that were only registered to create their places."""
        ids = [tenant.id for tenant in tenants]
        table = self._registry.rows.tenants
        (events,) = [spec.table() for spec in self._registry._recorder.tables if spec.kind == "events"]  # noqa: SLF001 (as above)
        with self._registry.writing_rows() as session:
            session.execute(sa.delete(table).where(table.c.id.in_(ids)))
            session.execute(sa.delete(events).where(events.c.originator_id.in_(ids)))

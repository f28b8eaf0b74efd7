"""Provision tenants, or adopt existing tables.

Provisioning has recorded steps: the tenant is registered, which takes its slug; its tables are created; its hooks run,
if the fleet has any. If the process dies in between, the tenant keeps the status ``provisioning``; the same request, or
``tenancy doctor --repair``, completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from eventsourcing.persistence import IntegrityError

from tenancy.errors import NotRegistered, RegistryMissing, TenancyError, TenantExists
from tenancy.isolation.strategy import allocate_placement
from tenancy.model.application_spec import encodings_of
from tenancy.model.placement import Placement
from tenancy.model.tenant import Tenant, TenantRequest, TenantStatus, check_status, status_error
from tenancy.registry import Registry
from tenancy.registry.lookup import new_slug
from tenancy.registry.tables import check_texts
from tenancy.storage.extra_tables import check_code

if TYPE_CHECKING:
    from tenancy.lifecycle.completion import Completion
    from tenancy.lifecycle.hooks import Hooks
    from tenancy.lifecycle.reactions import Reactions
    from tenancy.model.application_spec import ApplicationSpec
    from tenancy.model.versions import Versions
    from tenancy.settings import TenancySettings
    from tenancy.storage.inventory import ShardInventory
    from tenancy.storage.shard import Shard

__all__ = ["Provisioning"]

# Each table created in a transaction takes locks from a table that all clients of the server share.
_TABLES_PER_STEP: Final = 150
# Attempts to find a new tenant an id whose part of the names is free.
_ATTEMPTS: Final = 10


class Provisioning:
    """Creates and adopts tenants. Safe to use from many threads and processes."""

    def __init__(
        self,
        settings: TenancySettings,
        registry: Registry,
        *,
        shard: Shard,
        inventory: ShardInventory,
        completion: Completion,
        hooks: Hooks,
        reactions: Reactions,
        application_specs: Callable[[], Sequence[ApplicationSpec]],
        head: Callable[[], Versions],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._shard = shard
        self._inventory = inventory
        self._completion = completion
        self._hooks = hooks
        self._reactions = reactions
        self._application_specs = application_specs
        self._head = head

    def init(self, *, accept_encodings: bool = False) -> None:
        """Create the registry if it is missing, and record the fleet's applications."""
        try:
            specs = self._application_specs()
        except RegistryMissing:  # without classes, only a registry has the applications
            specs = ()
        fleet_settings = {"applications": [spec.to_json() for spec in specs]} if specs else {}
        self._registry.init(fleet_settings, encodings_of(specs), accept_encodings=accept_encodings)
        self._hooks.record(replaces=bool(specs))
        self._reactions.record()

    def record_new_applications(self) -> tuple[Sequence[str], Sequence[str]]:
        """Record the applications that are new in the code, unless the code lacks recorded ones.

        Return the names of the new ones, and of those that the code lacks.
        """
        recorded = {each["application"] for each in self._registry.fleet_settings().get("applications", [])}
        code = {each.application for each in self._application_specs()}
        new, lacking = sorted(code - recorded), sorted(recorded - code)
        if new and not lacking:
            self.init()
        return new, lacking

    def _record_code(self) -> None:
        """Record how new applications' events are stored, new hooks and new reactions.

        Raises EncodingMismatch before anything is created.
        """
        with suppress(RegistryMissing):  # created next, with all of these
            self._registry.record_encodings(encodings_of(self._application_specs()))
            self._hooks.record()
            self._reactions.record()

    def create(self, request: TenantRequest, actor: str | None, *, exist_ok: bool) -> Tenant:
        """Create a tenant, or complete the one that the same request, or with ``exist_ok`` any request, has registered.

        Raises a TenantUnavailable for an existing tenant that is not active.
        """
        slug = new_slug(self._registry, self._settings, request.slug)
        self._record_code()
        for _ in range(_ATTEMPTS):
            tenant = self._registered(self._new(slug, request), actor) or self._taken(
                slug, request.request_id, exist_ok=exist_ok
            )
            if tenant is not None:
                return self._serving(tenant, actor)
            # The slug is free: the tenant's part of the names is taken, or a tenant with this slug was just purged.
        msg = f"No free placement was found for tenant {slug!r} in {_ATTEMPTS} attempts."
        raise TenancyError(msg, remedy="Retry.", tenant=slug)

    def create_many(self, requests: Iterable[TenantRequest], actor: str | None, *, exist_ok: bool) -> Iterator[Tenant]:
        """Create tenants in batches, and yield each once it is active, in the order of the requests.

        Raises TenantExists at the first slug that is taken, unless ``exist_ok``; tenants before it remain.
        """
        self._record_code()
        for batch in self._batches(requests):
            slugs = [new_slug(self._registry, self._settings, request.slug) for request in batch]
            try:
                if len(set(slugs)) < len(slugs) or self._registry.find_many(slugs):
                    added = None
                else:
                    added = self._add([self._new(*each) for each in zip(slugs, batch, strict=True)], actor)
            except IntegrityError:
                added = None
            except RegistryMissing:
                self.init()
                added = None
            if added is not None:
                for completed in self._completion.complete_each(added, actor):
                    yield _or_raise(completed)
            else:
                for request in batch:  # one by one, to find the slug that is taken
                    yield self.create(request, actor, exist_ok=exist_ok)

    def _batches(self, requests: Iterable[TenantRequest]) -> Iterator[list[TenantRequest]]:
        tables = sum(len(application_spec.tables) for application_spec in self._application_specs())
        size = max(1, _TABLES_PER_STEP // max(1, tables))
        batch: list[TenantRequest] = []
        for request in requests:
            batch.append(request)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _new(self, slug: str, request: TenantRequest) -> Tenant:
        self._check_code(slug)
        tenant_id = uuid4()
        names = [application_spec.application for application_spec in self._application_specs()]
        placement = allocate_placement(self._settings, slug, tenant_id, names, self._shard.identifier_limit)
        return Tenant.requested(request, tenant_id, slug, placement, self._head())

    def _check_code(self, slug: str) -> None:
        """Raise NotRegistered if this process could not create all of a new tenant's tables."""
        try:
            for application_spec in self._application_specs():
                check_code(application_spec)
            with suppress(RegistryMissing):  # it has no hooks
                self._hooks.check()
        except NotRegistered:
            with suppress(RegistryMissing):
                if self._registry.find(slug) is not None:
                    return  # the existing tenant may need no tables
            raise

    def _add(self, new: Sequence[Tenant], actor: str | None) -> Sequence[Tenant]:
        try:
            return self._registry.add(new, actor)
        except RegistryMissing:
            self.init()
            return self._registry.add(new, actor)

    def _registered(self, new: Tenant, actor: str | None) -> Tenant | None:
        """Register a tenant, or return None when its slug, placement or request id is taken."""
        try:
            return self._add([new], actor)[0]
        except IntegrityError:
            return None

    def _serving(self, tenant: Tenant, actor: str | None) -> Tenant:
        """Complete a tenant, and return it if it is active."""
        (completed,) = self.complete([tenant], actor)
        check_status(completed, writes=True)
        return completed

    def _taken(self, slug: str, request_id: str | None, *, exist_ok: bool) -> Tenant | None:
        found = self._registry.find(slug)
        if found is not None and (exist_ok or (request_id is not None and found.request_id == request_id)):
            return found
        if found is not None:
            raise _exists(found)
        if request_id is not None and self._registry.find_request(request_id) is not None:
            msg = f"Request {request_id!r} has already created a tenant with another slug."
            raise TenantExists(msg, remedy="Use a new id for each request.", tenant=slug)
        return None

    def complete(self, tenants: Sequence[Tenant], actor: str | None) -> Sequence[Tenant]:
        """Create the tables of tenants in provisioning, run their hooks, and activate them; return others unchanged.

        Raises HookFailed for the first tenant whose hook fails; the others are completed.
        """
        return [_or_raise(completed) for completed in self._completion.complete_each(tenants, actor)]

    def create_missing(self, tenant: Tenant, actor: str | None = None) -> None:
        """Create and record tables that a tenant has lost or that are new in the code, unless it is being purged."""
        self._completion.create_missing(tenant, actor)

    def adopt(self, request: TenantRequest, placement: Placement, actor: str | None) -> Tenant:
        """Register existing tables as a tenant, without touching them.

        Raises TenancyError when a table is missing or belongs to another tenant, and ProgrammingError when one
        has another shape.
        """
        slug = new_slug(self._registry, self._settings, request.slug)
        check_texts(schema=placement.schema, table_prefix=placement.table_prefix)
        self._record_code()
        self._shard.check(placement)
        application_specs = self._application_specs()
        missing = self._inventory.missing(placement, application_specs)
        if missing:
            msg = (
                f"Tenant {slug!r} cannot be adopted: there is no table {', '.join(str(each.name) for each in missing)}."
            )
            remedy = "Check the schema and prefix, or create it: construct the application once with CREATE_TABLE=yes."
            raise TenancyError(msg, remedy=remedy, tenant=slug)
        # The version of existing views is unknown.
        versions = replace(self._head(), tables=self._inventory.version(placement, application_specs), views={})
        new = Tenant.requested(request, uuid4(), slug, placement, versions, adopted=True)
        try:
            found = self._taken(slug, request.request_id, exist_ok=False)
        except RegistryMissing:
            self.init()
            found = None
        if found is not None:
            return self._serving(found, actor)
        if self._is_of_another(placement):
            raise _overlap(slug)
        tenant = self._registered(new, actor)
        if tenant is None:
            self._taken(slug, None, exist_ok=False)
            raise _overlap(slug)
        return self._serving(tenant, actor)

    def _is_of_another(self, placement: Placement) -> bool:
        # In both directions: purging one tenant must not drop the other's tables.
        application_specs = self._application_specs()
        wanted = [spec.name for spec in self._inventory.specs(placement, application_specs)]
        return any(
            any(self._inventory.covers(other, name, application_specs) for name in wanted)
            or any(
                self._inventory.owns(placement, spec.name, application_specs)
                for spec in self._inventory.specs(other.placement, application_specs)
            )
            for other in self._registry.list()
        )


def _or_raise(completed: Tenant | TenancyError) -> Tenant:
    if isinstance(completed, TenancyError):
        raise completed
    return completed


def _exists(tenant: Tenant) -> TenantExists:
    msg = f"Tenant {tenant.slug!r} already exists"
    if tenant.status is TenantStatus.ACTIVE:
        remedy = "Choose another slug, or pass exist_ok=True (--exist-ok) to use this tenant."
        return TenantExists(f"{msg}.", remedy=remedy, tenant=tenant.slug)
    _, what, remedy = status_error(tenant)
    if tenant.status is TenantStatus.PROVISIONING:
        remedy = "If the process that created it died: tenancy doctor --repair, or retry with the same request_id."
    else:
        remedy = f"Choose another slug. {remedy}".rstrip()
    return TenantExists(f"{msg}, and {what}.", remedy=remedy, tenant=tenant.slug)


def _overlap(slug: str) -> TenancyError:
    msg = f"Tenant {slug!r} cannot be adopted: these tables, or their schema, belong to another tenant."
    return TenancyError(msg, remedy="Pass a schema and prefix that no other tenant owns.", tenant=slug)

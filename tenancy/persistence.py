"""The persistence module of tenants' applications: this package's persistence module, with an admission check.

``tenants.env(slug)`` names this module, so every process with these variables uses it, also under ``tenancy exec``.
Each call verifies that the tenant may be read or written. The library requires exactly one factory class in this
module.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any, Final
from uuid import UUID
from weakref import ref

from eventsourcing.persistence import Mapper, PersistenceError, ProgrammingError

from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
from eventsourcing_sqlalchemy.dialects.protocols import Batch
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.limiting import Reservation
from eventsourcing_sqlalchemy.shared_resources import Reference
from tenancy.errors import RegistryUnavailable
from tenancy.isolation import factory
from tenancy.isolation.environment import TENANT, PlacedTenant
from tenancy.metering.ledger import Ledger, acquire_ledger
from tenancy.metering.limiter import Limiter
from tenancy.metering.source import quotas_for
from tenancy.migrations.requirement import Requirement, requirement_of
from tenancy.model.encodings import Encoding
from tenancy.model.tenant import Tenant
from tenancy.registry.cache import RegistryCache, acquire_registry_cache
from tenancy.settings import TenancySettings

__all__ = ["TenantDatastore", "TenantFactory"]


class TenantDatastore(SQLAlchemyDatastore):
    """A tenant's datastore. It refuses calls that the tenant's status does not allow, and calls of a process whose
    cipher or compressor differs from the fleet's.
    """

    sequence_remedy = "Repair it: tenancy doctor --repair"
    encoding: tuple[str, Encoding] | None = None
    """The application and how this process stores its events; None for a view, which stores none."""
    requirement: Requirement | None = None
    """The revision that this process's code needs of the tenant."""
    _registry_reference: Reference[RegistryCache] | None = None
    _registry_cache: RegistryCache | None = None
    _ledger_reference: Reference[Ledger] | None = None
    _tenant_id: UUID
    _settings: TenancySettings
    _tenant: Tenant | None = None
    """The tenant whose quotas are applied; the cache returns the same object until the tenant changes."""

    def require_admission(
        self, reference: Reference[RegistryCache], tenant_id: UUID, settings: TenancySettings
    ) -> None:
        """Check admission with a registry cache from now on, and release it when the datastore is closed."""
        self._registry_reference, self._registry_cache, self._tenant_id = reference, reference.resource, tenant_id
        self._settings = settings
        # For a session that was opened elsewhere: events may be recorded in it before the first admission.
        self.limiter = _FirstLimiter(self)
        # The library constructs a factory for each application that another one follows, and never closes it.
        reference.release_when_collected(self)

    def admit(self, *, writes: bool) -> None:
        """Raise a TenantUnavailable unless the tenant may be read, or with ``writes`` written; or EncodingMismatch."""
        registry_cache = self._registry_cache  # another thread may close the datastore meanwhile
        if registry_cache is not None:
            tenant = registry_cache.admit(self._tenant_id, writes=writes)
            if writes and tenant is not self._tenant:
                self._limit(tenant)
            if self.requirement is not None:
                self.requirement.check(tenant)
            if self.encoding is not None:
                registry_cache.check_encoding(*self.encoding)

    def _limit(self, tenant: Tenant) -> None:
        """Apply the quotas of a tenant that the registry cache has just read."""
        quotas = quotas_for(tenant, self._settings)
        if quotas is None:
            self.limiter = None
        else:
            if self._ledger_reference is None:
                self._ledger_reference = acquire_ledger(self._settings)
                self._ledger_reference.release_when_collected(self)
            self.limiter = Limiter(self._ledger_reference.resource, tenant, quotas, self.application)
        self._tenant = tenant

    def error(self, error: Exception, subject: str) -> PersistenceError:
        translated = super().error(error, subject)
        registry_cache = self._registry_cache
        if registry_cache is not None and isinstance(translated, ProgrammingError):
            # The table may be missing because the tenant was purged after it was admitted.
            registry_cache.forget(self._tenant_id)
            with suppress(RegistryUnavailable):
                registry_cache.admit(self._tenant_id, writes=False)
        return translated

    def close(self) -> None:
        super().close()
        self._registry_cache = None
        self.limiter = None
        for reference in (self._registry_reference, self._ledger_reference):
            if reference is not None:
                reference.release()


class _FirstLimiter:
    """Stands for the limiter until the first admission has found the tenant's quotas."""

    def __init__(self, datastore: TenantDatastore) -> None:
        self._datastore = ref(datastore)

    def reserve(self, batch: Batch, *, follows: bool) -> Reservation | None:
        """Admit the tenant, and let its limiter decide."""
        datastore = self._datastore()
        if datastore is None:
            return None
        datastore.admit(writes=True)
        limiter = datastore.limiter
        return None if limiter is None or limiter is self else limiter.reserve(batch, follows=follows)


class TenantFactory(factory.PlacedFactory):
    """Constructs the recorders of one application of one tenant."""

    datastore_class = TenantDatastore
    datastore: TenantDatastore

    def _construct_datastore(self) -> SQLAlchemyDatastore:
        tenant_id, settings = self._tenant()
        datastore = super()._construct_datastore()
        assert isinstance(datastore, TenantDatastore)
        datastore.requirement = requirement_of(self.env.name, self.env)
        datastore.require_admission(acquire_registry_cache(settings), tenant_id, settings)
        return datastore

    def mapper(self, *args: Any, **kwargs: Any) -> Mapper[Any]:
        """Construct a mapper, whose cipher and compressor must be the fleet's."""
        self.datastore.encoding = (self.env.name, Encoding.read(self.env))
        return super().mapper(*args, **kwargs)

    def _tenant(self) -> tuple[UUID, TenancySettings]:
        value = self.env.get(TENANT, "")
        if isinstance(value, PlacedTenant):
            return value.id, value.settings
        try:
            tenant_id = UUID(value)
        except ValueError:
            msg = (
                f"TENANCY_TENANT is {value!r} (application {self.env.name!r}). It must be a tenant's id: take all "
                "variables together from tenants.env(slug), or from: tenancy env SLUG"
            )
            raise SettingsError(msg, variable=TENANT) from None
        return tenant_id, _settings(frozenset(item for item in self.env.items() if _is_of_registry(item[0])))


# These are the same for all tenants.
_OF_DATABASE: Final = ("SQLALCHEMY_URL", "SQLALCHEMY_CONNECTION_CREATOR_TOPIC")


def _is_of_registry(variable: str) -> bool:
    return variable in _OF_DATABASE or (variable.startswith("TENANCY_") and variable != TENANT)


@lru_cache(maxsize=16)
def _settings(environment: frozenset[tuple[str, str]]) -> TenancySettings:
    """Return the settings of a process that was given variables, which most of its applications share."""
    return TenancySettings.read(dict(environment))

"""A fleet's projections over all tenants, and what the registry records of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from eventsourcing.projection import Projection
from eventsourcing.utils import get_topic

from eventsourcing_sqlalchemy.recorders import SQLAlchemyTrackingRecorder
from eventsourcing_sqlalchemy.settings import parse_url
from tenancy.errors import NotRegistered, TenancyError
from tenancy.storage.cross_tenant import CrossTenantProjection

if TYPE_CHECKING:
    from eventsourcing.application import Application

    from tenancy.model.tenant import Tenant
    from tenancy.registry import Registry
    from tenancy.settings import TenancySettings

__all__ = ["CrossTenantProjections"]

# A fleet setting in the registry for each projection. One for all of them would lose a name when two processes with
# different projections start at once.
_RECORDED: Final = "cross_tenant:"


class CrossTenantProjections:
    """A fleet's projections over all tenants, by name."""

    def __init__(self, settings: TenancySettings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._by_name: dict[str, CrossTenantProjection] = {}

    def __iter__(self) -> Iterator[CrossTenantProjection]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> CrossTenantProjection:
        return self._by_name[name]

    def register(
        self,
        application: type[Application[Any]],
        projection: type[Projection[Any]],
        view: type[SQLAlchemyTrackingRecorder],
        url: str | None,
    ) -> None:
        """Register a projection, or one more application for a registered one.

        Raises TenancyError for a view without ``forget``, and for a name that another projection has.
        """
        if not callable(getattr(view, "forget", None)):
            msg = f"The view {get_topic(view)} has no method forget(tenant): a purge could not remove a tenant's rows."
            raise TenancyError(msg, remedy="Add it: delete the rows of the tenant in self.transaction().")
        parsed = None if url is None else parse_url(url, "The URL of the view")
        known = self._by_name.get(projection.name)
        if known is None:
            known = self._by_name[projection.name] = CrossTenantProjection(self._settings, projection, view, parsed)
        if (known.projection_class, known.view_class, known.url) != (projection, view, parsed):
            msg = f"The projection {projection.name!r} over all tenants is registered with another class, view or URL."
            raise TenancyError(msg, remedy="Give one of them another name.")
        known.applications[application.name] = application

    def find(self, projection: type[Projection[Any]]) -> CrossTenantProjection:
        """Return a registered projection; raises NotRegistered."""
        found = self._by_name.get(projection.name)
        if found is None or found.projection_class is not projection:
            msg = f"Projection {projection.name!r} ({get_topic(projection)}) is not registered over all tenants."
            remedy = "Register it: tenants.project_across(application, projection, view)"
            raise NotRegistered(msg, remedy=remedy)
        return found

    def record(self) -> None:
        """Record in the registry which views will hold tenants' rows, before the first row is written."""
        for name in self._by_name.keys() - self._recorded().keys():
            self.record_version(self._by_name[name])

    def record_version(self, projection: CrossTenantProjection) -> None:
        """Record in the registry that the view's tables are those of this process's version."""
        self._registry.record(f"{_RECORDED}{projection.name}", value={"version": projection.version})

    def outdated(self) -> list[CrossTenantProjection]:
        """Return the projections whose view has another version than the recorded one, with one query."""
        versioned = [each for each in self if each.version is not None]
        recorded = self._recorded() if versioned else {}
        return [each for each in versioned if each.name in recorded and recorded[each.name] != each.version]

    def create_tables(self) -> None:
        """Create the missing tables of all views, also where CREATE_TABLE is off, and record them; idempotent."""
        if self._by_name:
            self.record()
        for each in self:
            each.create_tables()

    def _recorded(self) -> dict[str, str | None]:
        """Return the version of each view; None for one without a version."""
        settings = self._registry.fleet_settings()
        # Older registries have no version there.
        return {
            key.removeprefix(_RECORDED): value["version"] if isinstance(value, dict) else None
            for key, value in settings.items()
            if key.startswith(_RECORDED)
        }

    def check_code(self) -> None:
        """Raise NotRegistered if this process lacks the code of a view that may hold rows of a tenant."""
        missing = sorted(self._recorded().keys() - self._by_name.keys())
        if missing:
            names = ", ".join(missing)
            msg = f"The views over all tenants may hold rows of the tenant, and their code is missing: {names}."
            remedy = "Register them: tenants.project_across(...), or on the command line --app module:name"
            raise NotRegistered(msg, remedy=remedy)

    def forget(self, tenant: Tenant) -> None:
        """Delete a tenant's rows from all views; idempotent. Raises as :meth:`check_code` does."""
        self.check_code()
        for each in self:
            each.forget(tenant)

    def close(self) -> None:
        """Release the engines of all views; idempotent."""
        for each in self:
            each.close()

"""The revision that this code needs: a tenant that lacks it is not served."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from eventsourcing.utils import Environment

from tenancy.errors import TenantOutdated
from tenancy.migrations.revisions import revision_directory

if TYPE_CHECKING:
    from tenancy.migrations.revisions import RevisionDirectory
    from tenancy.model.tenant import Tenant

__all__ = ["Requirement", "requirement_of"]


class Requirement:
    """A required revision. Safe to use from many threads."""

    def __init__(self, directory: RevisionDirectory, revision: str) -> None:
        self._directory = directory
        self._revision = revision
        # The revisions of tenants that are served: few, and a call of a tenant's application only looks them up.
        self._served: set[tuple[str, ...]] = set()

    def check(self, tenant: Tenant) -> None:
        """Raise TenantOutdated for a tenant that lacks the revision. One with revisions unknown to this code serves."""
        revisions = tenant.versions.migrations
        if revisions in self._served:
            return
        if not self._directory.serves(revisions, self._revision):
            msg = f"Tenant {tenant.slug!r} lacks the revision {self._revision}, which this code needs."
            raise TenantOutdated(msg, remedy=f"Migrate it: tenancy migrate {tenant.slug}", tenant=tenant.slug)
        self._served.add(revisions)


def requirement_of(application: str, environment: Mapping[str, str]) -> Requirement | None:
    """Return what an application or projection needs of a tenant, or with an empty name what all need; or None."""
    read = Environment(application, {**environment})
    revision, path = read.get("TENANCY_REQUIRES", ""), read.get("TENANCY_MIGRATIONS", "")
    return _requirement(Path(path).absolute(), revision) if revision and path else None


@lru_cache(maxsize=64)
def _requirement(path: Path, revision: str) -> Requirement:
    return Requirement(revision_directory(path), revision)

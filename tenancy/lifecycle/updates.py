"""Change what is known of existing tenants: their names and metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tenancy.arguments import check_list, check_type
from tenancy.errors import InvalidArgument
from tenancy.model.metadata import equal, plain_metadata
from tenancy.model.quotas import check_quotas
from tenancy.model.tenant import Action, Tenant, TenantStatus, check_status
from tenancy.model.weights import check_weight
from tenancy.registry.lookup import one_tenant

if TYPE_CHECKING:
    from tenancy.registry import Registry

__all__ = ["Updates"]


class Updates:
    """Changes tenants' names and metadata. Safe to use from many threads and processes."""

    def __init__(self, registry: Registry, changed: Callable[[Tenant], None]) -> None:
        self._registry = registry
        self._changed = changed

    def update(
        self,
        wanted: str | Tenant,
        *,
        name: str | None,
        metadata: Mapping[str, Any] | None,
        unset: Iterable[str],
        replace: bool,
        actor: str | None,
    ) -> Tenant:
        """Change a tenant's name and metadata; return the changed tenant. Does nothing if it has them already.

        The tenant is locked while its metadata is merged, so updates of different keys do not undo each other.
        """
        removed = _checked_changes(name, metadata, unset, replace=replace)
        with one_tenant(self._registry, wanted) as (session, tenant):
            if tenant.status is TenantStatus.PURGING:
                check_status(tenant, writes=False)
            merged = {} if replace else {key: value for key, value in tenant.metadata.items() if key not in removed}
            merged |= metadata or {}
            new_name, new_metadata = tenant.name if name is None else name, plain_metadata(merged)
            remark = _remark_of(tenant, new_name, new_metadata)
            if not remark:
                return tenant
            (changed,) = self._registry.change(
                session, [tenant], Action.UPDATE, actor, remark=remark, name=new_name, metadata=new_metadata
            )
        self._changed(changed)
        return changed


def _checked_changes(
    name: str | None, metadata: Mapping[str, Any] | None, unset: Iterable[str], *, replace: bool
) -> set[str]:
    """Return the keys to remove; raises InvalidArgument for changes that contradict each other."""
    check_type("name", name, (str, type(None)), "a text")
    check_type("replace", replace, bool, "True or False")
    check_list("unset", unset, 'a list of keys: unset=["trial"]')
    removed = list(unset)
    for key in removed:
        check_type("A key in unset", key, str, "a text")
    if metadata is not None:
        plain_metadata(metadata)
        check_weight(metadata)
        check_quotas(metadata)
    if replace and (metadata is None or removed):
        msg = "replace=True needs the new metadata, and leaves nothing to unset."
        raise InvalidArgument(msg, remedy="Pass metadata={...}, replace=True, without unset.")
    for key in removed:
        if key in (metadata or {}):
            msg = f"The key {key[:100]!a} is both set and unset."
            raise InvalidArgument(msg, remedy="Pass it once.")
    return set(removed)


def _remark_of(tenant: Tenant, name: str, metadata: Mapping[str, Any]) -> str:
    """Return the names of what differs, for the history; empty if nothing does. Never contains a value."""
    before = tenant.metadata
    keys = {
        "set": [key for key, value in metadata.items() if key not in before or not equal(before[key], value)],
        "unset": [key for key in before if key not in metadata],
    }
    parts = ["name"] if name != tenant.name else []
    return "; ".join(parts + [f"{verb} {', '.join(sorted(some))}" for verb, some in keys.items() if some])

"""Celery: the current tenant travels in the headers of each task, and the worker runs the task in its scope.

The header holds the tenant's id, so a rename between publishing and running makes no difference.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from uuid import UUID

from celery import Celery, Task, current_task
from celery.signals import before_task_publish

from tenancy import context
from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument, NoCurrentTenant, TenancyError, TenantNotFound
from tenancy.tenancy import Tenancy

__all__ = ["HEADER", "TenantTask", "install"]

HEADER: Final = "tenancy_tenant"
"""The header with the tenant's id."""

_ENTERED: Final = "tenancy_is_entered"


class TenantTask(Task):  # type: ignore[misc]
    """The base of tasks that run in the scope of the tenant that published them.

    :func:`install` makes it the base of all tasks of an application. Derive your own base classes from it.

    A task of a tenant that cannot be read fails with the error of its status: with TenantSuspended, for example. A task
    whose ``autoretry_for`` contains the error is retried after its ``default_retry_delay``.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; in a worker, in the scope of its tenant."""
        try:
            scope = self._scope()
        except TenancyError as error:
            if isinstance(error, tuple(getattr(self, "autoretry_for", ()))):
                raise self.retry(exc=error) from error
            raise
        with scope:
            return super().__call__(*args, **kwargs)

    def _scope(self) -> AbstractContextManager[None]:
        request = self.request
        tenants: Tenancy | None = getattr(self.app, "tenancy", None)
        # A task that another one calls as a function runs in the scope of its caller.
        if tenants is None or request.called_directly or request.get(_ENTERED):
            return nullcontext()
        request.update({_ENTERED: True})
        header = request.get(HEADER)
        if header is None:
            # In an eager task, the caller's scope remains.
            return nullcontext() if request.is_eager else context.scope(tenants, None)
        try:
            tenant_id = UUID(header)
        except (TypeError, ValueError, AttributeError):
            msg = f"The header {HEADER} of task {self.name} is not the id of a tenant."
            raise TenantNotFound(msg, remedy="Publish the task with tenancy.frameworks.celery installed.") from None
        return tenants.scope(tenants.fleet.registry_cache.admit(tenant_id, writes=False))


def install(app: Celery, *, tenants: Tenancy) -> None:
    """Let the current tenant travel with all tasks that this process publishes, and run tasks in its scope.

    Call it in every process that publishes or runs tasks, before the first task is used. A task that is published
    outside a scope has no tenant.
    """
    check_type("tenants", tenants, Tenancy, "the Tenancy of the fleet")
    if "Task" in vars(app):
        msg = f"The application {app.main!r} has used its tasks already."
        raise InvalidArgument(msg, remedy="Call install() right after Celery(...).")
    app.tenancy = tenants
    app.task_cls = TenantTask

    def publish(headers: dict[str, Any], **_: Any) -> None:
        tenant_id = _publishing(tenants)
        if tenant_id is not None:
            headers.setdefault(HEADER, tenant_id)

    # Not weak: the function exists only here.
    before_task_publish.connect(publish, weak=False, dispatch_uid=f"tenancy-{id(app)}")


def _publishing(tenants: Tenancy) -> str | None:
    """Return the id of the tenant that publishes a task, or None."""
    try:
        return str(context.current_id(tenants))
    except NoCurrentTenant:
        # A worker publishes the next task of a chain when it has left the scope of the task before it.
        if not current_task or getattr(current_task.app, "tenancy", None) is not tenants:
            return None
        found: str | None = current_task.request.get(HEADER)
        return found

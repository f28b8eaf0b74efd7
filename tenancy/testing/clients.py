"""Send the requests of a test client to one tenant."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tenancy.errors import InvalidArgument

if TYPE_CHECKING:
    from tenancy.model.tenant import Tenant

__all__ = ["as_tenant"]

_TClient = TypeVar("_TClient")

_MISSING: Final = object()


@contextmanager
def as_tenant(
    client: _TClient, tenant: Tenant | str, *, header: str | None = None, host: str | None = None
) -> Iterator[_TClient]:
    """Let a test client name a tenant in each request of the block, as its resolver expects.

    ``host`` is a template, such as ``{slug}.example.com``; ``header`` is the name of a header for the slug. The client
    is one of httpx or Starlette (also FastAPI's), Flask, or Django.
    """
    slug = tenant if isinstance(tenant, str) else tenant.slug
    if (header is None) == (host is None):
        msg = "A request names its tenant in a header or in the host name."
        raise InvalidArgument(msg, remedy='Pass one of them: header="X-Tenant" or host="{slug}.example.com".')
    name, value = ("host", host.replace("{slug}", slug)) if host is not None else (header or "", slug)
    values, key = _headers_of(client, name)
    before = values.get(key, _MISSING)
    values[key] = value
    try:
        yield client
    finally:
        if before is _MISSING:
            del values[key]
        else:
            values[key] = before


def _headers_of(client: Any, header: str) -> tuple[MutableMapping[str, Any], str]:
    """Return where a client keeps what it sends with each request, and the key of a header in it."""
    wsgi = f"HTTP_{header.upper().replace('-', '_')}"
    if hasattr(client, "environ_base"):  # Flask, which takes the host from its configuration
        return (client.application.config, "SERVER_NAME") if header == "host" else (client.environ_base, wsgi)
    if hasattr(client, "defaults"):  # Django
        return client.defaults, wsgi
    if hasattr(client, "headers"):  # httpx and Starlette
        return client.headers, header
    msg = f"A client of type {type(client).__name__} is not known."
    raise InvalidArgument(msg, remedy="Pass a test client of httpx, Starlette, FastAPI, Flask or Django.")

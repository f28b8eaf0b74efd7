"""Resolve a request to its tenant: by host, by domain, by path, or by a header that a gateway sets.

A resolver is any callable. It returns the slug as the client wrote it, or a Tenant, or None when the request names no
tenant; it raises InvalidSlug for a malformed name. It does not verify that the tenant exists. Under ASGI it runs on the
event loop, so it must not block. It may raise MustWait there: then it is called again, in a thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from tenancy.arguments import check_type, invalid
from tenancy.errors import InvalidArgument, InvalidSlug
from tenancy.model.domains import bare_host
from tenancy.model.tenant import Tenant

if TYPE_CHECKING:
    from tenancy.tenancy import Tenancy

__all__ = ["Found", "MustWait", "Request", "Resolver", "by_domain", "by_header", "by_host", "by_path", "first"]

# Standards exclude underscores from host names, but they are common in practice.
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PUNYCODE: Final = "xn--"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An ASGI or WSGI request, as resolvers receive it."""

    path: str
    """Percent-decoded once, and relative to the root path or ``SCRIPT_NAME``."""
    headers: Sequence[tuple[str, str]] = ()
    """Pairs of lower-case name and value, in request order. WSGI servers join repeated headers by a comma."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The ASGI ``scope`` or the WSGI ``environ``."""
    tenants: Tenancy | None = field(default=None, repr=False)
    """The fleet of the middleware."""
    may_wait: bool = True
    """Whether a resolver may query a database: false on an event loop."""

    def values(self, header: str) -> Sequence[str]:
        """Return all values of a header; ``header`` is its name in lower case."""
        return [value for name, value in self.headers if name == header]


class Found(NamedTuple):
    """A slug, and the leading part of the path that the application does not see."""

    slug: str
    mount: str = ""


class MustWait(Exception):  # noqa: N818 (a signal, which no user sees)
    """A resolver cannot answer without waiting, and ``may_wait`` is false."""


Resolver = Callable[[Request], Found | Tenant | str | None]
"""The type of a resolver: :func:`by_host`, :func:`by_domain`, :func:`by_path` and :func:`by_header` return one."""


def first(*resolvers: Resolver) -> Resolver:
    """Ask resolvers in turn, until one names a tenant.

    A resolver that finds a malformed name, or the name of a tenant that does not exist, ends the search: the request
    gets 404, and never a tenant that a later resolver would find.
    """
    if not resolvers:
        msg = "first() has no resolver."
        raise InvalidArgument(msg, remedy="Pass some: first(by_header('X-Tenant'), by_host('example.com'))")
    for each in resolvers:
        if not callable(each):
            raise invalid("A resolver of first()", each, "functions, such as by_host('example.com')")

    def resolve(request: Request) -> Found | Tenant | str | None:
        for each in resolvers:
            found = each(request)
            if found is not None:
                return found
        return None

    return resolve


def by_domain() -> Resolver:
    """Find the tenant in its verified domains: see ``tenants.domains``. An unknown host names no tenant.

    The answer comes from memory. The port, letter case and a trailing dot are ignored.
    """

    def resolve(request: Request) -> Tenant | None:
        host = _only_value(request, "host")
        if host is None:
            return None
        if request.tenants is None:
            msg = "by_domain() has no fleet to look in."
            raise InvalidArgument(msg, remedy="Pass the request of a middleware, or Request(..., tenants=tenants).")
        cache, name = request.tenants.fleet.registry_cache, bare_host(host)
        is_known, tenant = cache.recall_domain(name)
        if is_known:
            return tenant
        if not request.may_wait:
            raise MustWait
        return cache.find_domain(name)

    return resolve


def by_host(domain: str) -> Resolver:
    """Find the tenant in the first label of the host: ``acme`` in ``acme.example.com``, for ``example.com``.

    The port, letter case and a trailing dot are ignored. Punycode is decoded: ``xn--mnchen-3ya.example.com`` has the
    slug ``münchen``. A host outside the domain, and ``example.com`` itself, names no tenant; ``a.b.example.com`` raises
    InvalidSlug.
    """
    check_type("The domain", domain, str, "a string: by_host('example.com')")
    suffix = "." + _domain(domain)

    def resolve(request: Request) -> str | None:
        host = _only_value(request, "host")
        if host is None:
            return None
        name = bare_host(host)
        return _slug_of_label(name.removesuffix(suffix)) if name.endswith(suffix) else None

    return resolve


def _domain(domain: str) -> str:
    try:
        name = domain.strip(".").encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not name or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        msg = f"{domain!r} is not a domain. Pass one without scheme and port: by_host('example.com')."
        raise ValueError(msg)
    return name


def _slug_of_label(label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise _invalid("The host")
    if not label.startswith(_PUNYCODE):
        return label
    # The codec "idna" rejects names that browsers send, such as straße.
    encoded = label.removeprefix(_PUNYCODE)
    try:
        slug = encoded.encode().decode("punycode")
        is_canonical = not slug.isascii() and slug.encode("punycode").decode() == encoded
    except UnicodeError:
        is_canonical = False
    if not is_canonical:
        raise _invalid("The host")
    return slug


def by_path(prefix: str = "") -> Resolver:
    """Find the tenant in the path: ``acme`` in ``/t/acme/orders``, for ``/t``; without a prefix, in the first segment.

    The application sees ``/orders``; ``/t/acme`` becomes its root path (``SCRIPT_NAME``). A path outside the prefix
    names no tenant; without a prefix, only ``/`` names none.
    """
    check_type("The prefix", prefix, str, "a string: by_path('/t')")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        msg = f"{prefix!r} is not a path prefix. Start it with a slash and end it without one: by_path('/t')."
        raise ValueError(msg)
    start = f"{prefix}/"

    def resolve(request: Request) -> Found | None:
        if not request.path.startswith(start):
            return None
        slug = request.path.removeprefix(start).partition("/")[0]
        return Found(slug, start + slug) if slug else None

    return resolve


def by_header(name: str) -> Resolver:
    """Find the tenant in a header. A slug with a comma, ``%`` or non-ASCII characters is percent-encoded UTF-8.

    Only safe behind a gateway that sets this header and removes the client's, including the spelling with ``_`` for
    ``-``: a client that can set the header chooses the tenant. A repeated header raises InvalidSlug.
    """
    check_type("The header name", name, str, "a string: by_header('X-Tenant')")
    if not _HEADER.fullmatch(name):
        msg = f"{name!r} is not a header name. Pass one: by_header('X-Tenant')."
        raise ValueError(msg)
    lowered = name.lower()

    def resolve(request: Request) -> str | None:
        value = _only_value(request, lowered)
        if value is None:
            return None
        try:
            return unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise _invalid(f"The header {name}") from None

    return resolve


def _only_value(request: Request, header: str) -> str | None:
    """Return the value of a header, or None; raises InvalidSlug when the header is repeated."""
    values = request.values(header)
    if not values:
        return None
    # WSGI servers join two headers by a comma.
    if len(values) > 1 or "," in values[0] or not values[0].isascii():
        raise _invalid(f"The header {header}")
    return values[0]


def _invalid(source: str) -> InvalidSlug:
    return InvalidSlug(f"{source} of the request does not contain a valid tenant slug.")

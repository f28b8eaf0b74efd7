"""From a request to the slug of its tenant: by the host, by the path, or by a header that a gateway sets.

A resolver is a callable, so a function of yours is one too. It returns a slug as the client wrote it, None when the
request names no tenant, or raises InvalidSlug when what it names can be nobody's. Whether there is such a tenant is not
its business. In ASGI it is called on the event loop, so it must not wait for anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from tenancy.arguments import check_type
from tenancy.errors import InvalidSlug

__all__ = ["Found", "Request", "Resolver", "by_header", "by_host", "by_path"]

_PORT: Final = re.compile(r":[0-9]*$")
# Underscores are in no host name by the standard, and in many by custom.
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PUNYCODE: Final = "xn--"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request of ASGI or WSGI, as resolvers see it."""

    path: str
    """Percent-decoded once, without what servers and applications above have taken of it."""
    headers: Sequence[tuple[str, str]] = ()
    """(name in lower case, value), in the order of the request. WSGI servers join those of one name by a comma."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The ``scope`` of ASGI or the ``environ`` of WSGI, for a resolver of your own."""

    def values(self, header: str) -> Sequence[str]:
        """Return the values of a header, whose name is given in lower case: as many as there are."""
        return [value for name, value in self.headers if name == header]


class Found(NamedTuple):
    """A slug, and the beginning of the path that names it and is not for the application."""

    slug: str
    mount: str = ""


Resolver = Callable[[Request], Found | str | None]
"""What :func:`by_host`, :func:`by_path` and :func:`by_header` return, and what may be used in their place."""


def by_host(domain: str) -> Resolver:
    """Find the tenant in the first part of the host: ``acme`` in ``acme.example.com``, for ``example.com``.

    The port, case and a dot at the end do not matter. Punycode is decoded: for ``xn--mnchen-3ya.example.com`` the slug
    is ``münchen``. Other hosts, ``example.com`` among them, name no tenant; ``a.b.example.com`` names nobody.
    """
    check_type("The domain", domain, str, "a text: by_host('example.com')")
    suffix = "." + _domain(domain)

    def resolve(request: Request) -> str | None:
        host = _only_value(request, "host")
        if host is None:
            return None
        name = _PORT.sub("", host).lower().removesuffix(".")
        return _slug_of_label(name.removesuffix(suffix)) if name.endswith(suffix) else None

    return resolve


def _domain(domain: str) -> str:
    try:
        name = domain.strip(".").encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not name or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        msg = f"{domain!r} is no domain. Give one without a port and without a scheme, as in by_host('example.com')."
        raise ValueError(msg)
    return name


def _slug_of_label(label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise _refused("The host")
    if not label.startswith(_PUNYCODE):
        return label
    # Not the codec "idna": it refuses names that browsers send, as that of straße.
    encoded = label.removeprefix(_PUNYCODE)
    try:
        slug = encoded.encode().decode("punycode")
        is_canonical = not slug.isascii() and slug.encode("punycode").decode() == encoded
    except UnicodeError:
        is_canonical = False
    if not is_canonical:
        raise _refused("The host")
    return slug


def by_path(prefix: str = "") -> Resolver:
    """Find the tenant in the path: ``acme`` in ``/t/acme/orders``, for ``/t``; without a prefix, in the first segment.

    The application sees ``/orders``: the rest becomes its root path (``SCRIPT_NAME``). Paths that do not begin with the
    prefix name no tenant; without one, that is only ``/``.
    """
    check_type("The prefix", prefix, str, "a text: by_path('/t')")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        msg = f"{prefix!r} is no prefix of paths. It begins with a slash and ends without one, as in by_path('/t')."
        raise ValueError(msg)
    start = f"{prefix}/"

    def resolve(request: Request) -> Found | None:
        if not request.path.startswith(start):
            return None
        slug = request.path.removeprefix(start).partition("/")[0]
        return Found(slug, start + slug) if slug else None

    return resolve


def by_header(name: str) -> Resolver:
    """Find the tenant in a header; a slug beyond ASCII, or with a comma or ``%``, is percent-encoded UTF-8.

    Only safe behind a gateway that sets this header itself and removes what clients send under this name, also where
    ``_`` stands for ``-``: whoever can set it chooses the tenant. A request that has it twice is refused.
    """
    check_type("The name of the header", name, str, "a text: by_header('X-Tenant')")
    if not _HEADER.fullmatch(name):
        msg = f"{name!r} is no name of a header. Give one as in by_header('X-Tenant')."
        raise ValueError(msg)
    lowered = name.lower()

    def resolve(request: Request) -> str | None:
        value = _only_value(request, lowered)
        if value is None:
            return None
        try:
            return unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise _refused(f"The header {name}") from None

    return resolve


def _only_value(request: Request, header: str) -> str | None:
    """Return the value of a header that must not be there twice, or None."""
    values = request.values(header)
    if not values:
        return None
    # A comma is what a WSGI server leaves of two headers.
    if len(values) > 1 or "," in values[0] or not values[0].isascii():
        raise _refused(f"The header {header}")
    return values[0]


def _refused(what: str) -> InvalidSlug:
    return InvalidSlug(f"{what} of the request names a tenant in no way that can be one's.")

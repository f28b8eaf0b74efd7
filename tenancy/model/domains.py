"""Domains: host names of a tenant's own, in the form in which browsers send them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from tenancy.arguments import check_type
from tenancy.errors import InvalidDomain

__all__ = ["Domain", "bare_host", "normalize_domain"]

_MAX_LENGTH: Final = 253
_PORT: Final = re.compile(r":[0-9]*$")
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PUNYCODE: Final = "xn--"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A host name that a tenant has claimed. It leads to the tenant once it is verified."""

    host: str
    """In lower case, as browsers send it: ``xn--mnchen-3ya.example``."""
    tenant_id: UUID
    token: str = field(repr=False)
    """The secret that the owner of the host publishes, for example in a TXT record."""
    created_at: datetime
    verified_at: datetime | None = None

    @property
    def is_verified(self) -> bool:
        """Whether requests with this host are the tenant's."""
        return self.verified_at is not None


def bare_host(host: str) -> str:
    """Return the host of a ``Host`` header in lower case, without the port and a trailing dot."""
    return _PORT.sub("", host).lower().removesuffix(".")


def normalize_domain(host: str) -> str:
    """Return a host name in the form in which browsers send it; raises InvalidDomain.

    The port, letter case and a trailing dot are ignored. A name beyond ASCII is encoded as IDNA 2008 requires, with the
    mapping of UTS 46, which needs the package idna.
    """
    check_type("The domain", host, str, "a host name such as 'shop.example.com'")
    name = bare_host(host)
    if not name.isascii() and len(name) <= _MAX_LENGTH:
        name = _encoded(host, name)
    labels = name.split(".")
    if len(name) > _MAX_LENGTH or not all(map(_LABEL.fullmatch, labels)):
        remedy = "Pass a host name without scheme and path, such as 'shop.example.com'."
        raise InvalidDomain(f"The domain {host[:_MAX_LENGTH]!a} is not a host name.", remedy=remedy)
    if len(labels) == 1 or labels[-1].isdigit():
        remedy = "Pass the complete name, such as 'shop.example.com'."
        raise InvalidDomain(f"The domain {host!a} is a single label or an IP address.", remedy=remedy)
    if not all(map(_is_canonical, labels)):
        raise InvalidDomain(f"The domain {host!a} has a malformed xn-- label.", remedy="Pass it in Unicode.")
    return name


def _encoded(host: str, name: str) -> str:
    try:
        import idna  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = f"The domain {host!a} has characters beyond ASCII, which need the package idna."
        remedy = "Install it: pip install 'eventsourcing-sqlalchemy[domains]'. Or pass the form with xn--."
        raise InvalidDomain(msg, remedy=remedy) from error
    try:
        # The codec of the standard library is of IDNA 2003, which leads "straße" to another host than browsers.
        return idna.encode(name, uts46=True, std3_rules=True).decode().removesuffix(".")
    except idna.IDNAError as error:
        msg = f"The domain {host!a} is not an internationalized host name: {str(error)!a}."
        raise InvalidDomain(msg, remedy="Correct it, or pass the form with xn--.") from error


def _is_canonical(label: str) -> bool:
    """Return whether a label with xn-- is the encoding of what it decodes to: another encoding is another host."""
    if not label.startswith(_PUNYCODE):
        return True
    encoded = label.removeprefix(_PUNYCODE)
    try:
        decoded = encoded.encode().decode("punycode")
        return not decoded.isascii() and decoded.encode("punycode").decode() == encoded
    except UnicodeError:
        return False

"""The tenant's part of schema and table names, and the patterns that recognise it.

A new tenant's part is the readable part of its slug and a piece of its id, as in ``acme_k3f9``. The readable part has
no underscore and the piece has a fixed length, so no tenant's prefix is the beginning of another's. The registry keeps
placements unique.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from tenancy.model.slugs import readable

__all__ = [
    "MAX_READABLE",
    "TENANT_SUFFIX",
    "fixed_start",
    "is_name_of",
    "name_pattern",
    "placement_pattern",
    "tenant_part",
]

MAX_READABLE: Final = 20
"""Maximum number of slug characters in a name."""

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no letter can be mistaken for a digit
_PIECE: Final = 4
TENANT_SUFFIX: Final = "_" + "0" * _PIECE
"""A placeholder as long as a tenant's part without its readable characters."""
# PostgreSQL reserves schemas named pg_...
_RESERVED: Final = ("", "pg")


def tenant_part(slug: str, tenant_id: UUID, room: int) -> str:
    """Return a tenant's part of its names, with at most ``room`` characters of its slug."""
    label = readable(slug, min(MAX_READABLE, room))
    if label in _RESERVED or label[0].isdigit():
        label = f"t{label}"[: max(room, 1)]
    number = tenant_id.int
    return f"{label}_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 5 * _PIECE, 5))


def placement_pattern(template: str) -> re.Pattern[str]:
    """Return a pattern for the names that a template with ``{tenant}`` yields; the group ``tenant`` is the tenant's
    part.
    """
    first, *rest = map(re.escape, template.split("{tenant}"))
    part = f"(?P<tenant>[a-z][a-z0-9]*_[{_ALPHABET}]{{{_PIECE}}})"
    return re.compile("(?P=tenant)".join([f"{first}{part}{rest[0]}", *rest[1:]]) if rest else first)


def fixed_start(template: str) -> str:
    """Return the part of a placement's template before ``{application}``: all of its names start with it."""
    return template.partition("{application}")[0]


def name_pattern(template: str, *, and_more: bool = False) -> re.Pattern[str]:
    """Return a pattern for the names that a placement's template yields for any application; with ``and_more``, also
    for longer ones.
    """
    parts = map(re.escape, template.split("{application}"))
    return re.compile(".+".join(parts) + (".*" if and_more else ""), re.DOTALL)


def is_name_of(name: str, template: str, *, and_more: bool = False) -> bool:
    """Return whether a name matches :func:`name_pattern`."""
    # Most names belong to other tenants: skip compiling a pattern for them.
    return (
        name.startswith(fixed_start(template)) and name_pattern(template, and_more=and_more).fullmatch(name) is not None
    )

"""Slugs: tenants' names in URLs, commands and, in part, table names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Set as AbstractSet
from typing import Final, Literal

from tenancy.arguments import check_type
from tenancy.errors import InvalidSlug

__all__ = ["MAX_LENGTH", "RESERVED", "SlugRule", "check_reserved", "normalize", "readable"]

SlugRule = Literal["any", "dns"]
"""Which slugs are accepted: ``any`` unambiguous text, or host name labels only."""

MAX_LENGTH: Final = 100
"""Maximum length of a slug in characters."""

RESERVED: Final = frozenset(
    {
        *("admin", "api", "app", "assets", "auth", "cdn", "console", "dashboard", "docs", "ftp", "health", "help"),
        *("internal", "localhost", "login", "logout", "mail", "media", "metrics", "public", "root", "signup", "smtp"),
        *("static", "status", "support", "tenancy", "webhooks", "www"),
    }
)
"""Slugs that a service usually needs for itself, as host names or paths."""

_DNS_LABEL: Final = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Control, format (bidi marks, zero-width joiners, soft hyphens), private, unassigned, surrogates, line and paragraph
# separators: two slugs that differ only in these look the same.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
# Letters and marks without a visible shape: fillers, variation selectors, the joiner of graphemes, a braille blank.
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef\U0001d159]"
)


def normalize(slug: str, rule: SlugRule = "any") -> str:
    """Return the normal form of a slug: NFKC, case-folded.

    Raises InvalidSlug for a slug that is empty, longer than 100 characters, ``.`` or ``..``, or that has a space at an
    end, a ``/`` or an invisible character; with the rule ``dns``, for everything but a host name label.
    """
    check_type("The slug", slug, str, "a text such as 'acme'")
    normal = slug
    # Case-folding may leave something that NFKC composes once more; both are stable after a few rounds.
    for _ in range(4):
        normal = unicodedata.normalize("NFKC", normal).casefold()
    fault = _fault(slug, normal)
    if fault is None and rule == "dns" and not _DNS_LABEL.fullmatch(normal):
        fault = "is not a host name label: up to 63 letters a-z, digits and dashes, with no dash at either end"
    if fault is not None:
        given = slug[: MAX_LENGTH + 1]
        raise InvalidSlug(
            f"The slug {given!a} {fault}.",
            remedy="Choose another slug; the tenant's name can be any text.",
            tenant=given,
        )
    return normal


def check_reserved(slug: str, reserved: AbstractSet[str]) -> None:
    """Raise InvalidSlug for a normalized slug that new tenants cannot have."""
    if slug in reserved:
        remedy = "Choose another slug, or remove it from TENANCY_RESERVED_SLUGS."
        raise InvalidSlug(f"The slug {slug!a} is reserved.", remedy=remedy, tenant=slug)


def _fault(slug: str, normal: str) -> str | None:
    unseen = next((character for character in slug + normal if _is_unseen(character)), None)
    faults = {
        "is empty": not normal,
        f"has more than {MAX_LENGTH} characters": len(normal) > MAX_LENGTH,
        f"has an invisible character, U+{ord(unseen or ' '):04X}": unseen is not None,
        "has a space at an end": normal != normal.strip() or slug != slug.strip(),
        "has a slash": "/" in normal,
        "means a directory in a URL": normal in (".", ".."),
    }
    return next((fault for fault, is_there in faults.items() if is_there), None)


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN or _BLANK.match(character) is not None


def readable(slug: str, length: int) -> str:
    """Return at most ``length`` characters a-z and 0-9 of a slug, for a schema name; may be empty."""
    plain = unicodedata.normalize("NFKD", slug).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9]", "", plain)[:length]

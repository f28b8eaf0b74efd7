"""Slugs: what a tenant is called in addresses and commands, and the readable part of the names of its tables."""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

from tenancy.arguments import check_type
from tenancy.errors import InvalidSlug

__all__ = ["MAX_LENGTH", "SlugRule", "normalize", "readable"]

SlugRule = Literal["any", "dns"]
"""Which slugs are accepted: ``any`` text that can be seen and told apart, or only labels of host names."""

MAX_LENGTH: Final = 100
"""The most characters that a slug may have."""

_DNS_LABEL: Final = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Control, format (bidi marks, zero-width joiners, soft hyphens), private, unassigned, surrogates, line and paragraph
# separators: they cannot be seen, so two slugs that differ in them look the same.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})
# Letters and marks that are drawn as nothing: fillers, variation selectors, the joiner of graphemes, a braille blank.
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef\U0001d159]"
)


def normalize(slug: str, rule: SlugRule = "any") -> str:
    """Return the one form of all ways to write a slug: NFKC, without case.

    Raises InvalidSlug for one that is empty, longer than 100 characters, ``.`` or ``..``, has a space at an end, a
    ``/`` or a character that cannot be seen; with the rule ``dns``, for everything but a label of a host name.
    """
    check_type("The slug", slug, str, "a text such as 'acme'")
    normal = slug
    # Case-folding may leave something that NFKC composes once more; both are stable after a few rounds.
    for _ in range(4):
        normal = unicodedata.normalize("NFKC", normal).casefold()
    fault = _fault(slug, normal)
    if fault is None and rule == "dns" and not _DNS_LABEL.fullmatch(normal):
        fault = "is no label of a host name: up to 63 letters a-z, digits and dashes, a dash at neither end"
    if fault is not None:
        given = slug[: MAX_LENGTH + 1]
        raise InvalidSlug(
            f"The slug {given!a} {fault}.",
            remedy="Choose another slug; the tenant's name can be any text.",
            tenant=given,
        )
    return normal


def _fault(slug: str, normal: str) -> str | None:
    unseen = next((character for character in slug + normal if _is_unseen(character)), None)
    faults = {
        "is empty": not normal,
        f"has more than {MAX_LENGTH} characters": len(normal) > MAX_LENGTH,
        f"has a character that cannot be seen, U+{ord(unseen or ' '):04X}": unseen is not None,
        "has a space at an end": normal != normal.strip() or slug != slug.strip(),
        "has a slash": "/" in normal,
        "means a directory in addresses": normal in (".", ".."),
    }
    return next((fault for fault, is_there in faults.items() if is_there), None)


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN or _BLANK.match(character) is not None


def readable(slug: str, length: int) -> str:
    """Return what of a slug can stand in the name of a schema: at most ``length`` of a-z and 0-9, perhaps nothing."""
    plain = unicodedata.normalize("NFKD", slug).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9]", "", plain)[:length]

"""Check arguments where they are passed, so that a mistake is reported before it breaks something else."""

from __future__ import annotations

from collections.abc import Iterable

from tenancy.errors import InvalidArgument

__all__ = ["check_class", "check_list", "check_type", "invalid"]


def check_type(what: str, value: object, types: type | tuple[type, ...], wanted: str) -> None:
    """Raise InvalidArgument unless a value is of one of the types; ``wanted`` says what to pass."""
    if not isinstance(value, types):
        raise invalid(what, value, wanted)


def check_class(what: str, value: object, base: type, wanted: str) -> None:
    """Raise InvalidArgument unless a value is a class below ``base``."""
    if not (isinstance(value, type) and issubclass(value, base)):
        raise invalid(what, value, wanted)


def check_list(what: str, value: object, wanted: str) -> None:
    """Raise InvalidArgument for a single value, such as a text, in place of a list."""
    if isinstance(value, str | type) or not isinstance(value, Iterable):
        raise invalid(what, value, wanted)


def invalid(what: str, value: object, wanted: str) -> InvalidArgument:
    """Return the error to raise for a value other than ``wanted``."""
    # Never show the value: it may be a secret.
    given = "None" if value is None else f"of type {type(value).__name__}"
    if isinstance(value, type):
        given = f"the class {value.__qualname__}"
    return InvalidArgument(f"{what} is {given}.", remedy=f"Pass {wanted}.")

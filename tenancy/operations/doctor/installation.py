"""Check what is installed: versions, and distributions that provide the same package."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from tenancy.operations.doctor.finding import Finding

__all__ = ["check"]

PERSISTENCE: Final = "eventsourcing-sqlalchemy"
_IMPORTED: Final = "eventsourcing_sqlalchemy"


def check() -> Iterator[Finding]:
    """Yield findings about the installation of this process."""
    yield from _versions()
    yield _distributions()


def _versions() -> Iterator[Finding]:
    installed = [f"{name} {metadata.version(name)}" for name in ("eventsourcing", "sqlalchemy")]
    yield Finding(name="versions", level="ok", what=f"Python {platform.python_version()}, {', '.join(installed)}.")


def _distributions() -> Finding:
    """Report other distributions with the same import name: the upstream package has the same name, too."""
    found = set()
    for each in metadata.distributions():
        name = each.metadata["Name"]
        if name.lower().replace("_", "-") == PERSISTENCE or any(
            file.parts[0] == _IMPORTED for file in each.files or ()
        ):
            found.add(f"{name} {each.version} in {each.locate_file('')}")
    if len(found) <= 1:
        return Finding(name="distributions", level="ok", what=f"One installed distribution provides {_IMPORTED}.")
    return Finding(
        name="distributions",
        level="failure",
        what=f"Several installed distributions provide {_IMPORTED}; which one is imported is undefined: "
        f"{'; '.join(sorted(found))}.",
        remedy=f"Uninstall all of them (pip uninstall {PERSISTENCE}) and install this one again.",
    )

"""The command `tenancy` in a process of its own, for the demo's tenants."""

import sys


def command(*words: str) -> list[str]:
    """Return what runs the command: with this interpreter, whatever is on the path."""
    return [sys.executable, "-m", "tenancy", "--app", "demo.system:fleet", *words]

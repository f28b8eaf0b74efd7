"""The command `tenancy` for the demo's tenants, as a process."""

import sys


def command(*words: str) -> list[str]:
    """Return the command line, with this interpreter."""
    return [sys.executable, "-m", "tenancy", "--app", "demo.system:fleet", *words]

"""The command line of `tenancy` for the demo's fleet."""

import sys


def command(*words: str) -> list[str]:
    """Return the command line, with this interpreter."""
    return [sys.executable, "-m", "tenancy", "--app", "demo.system:open_tenancy", *words]

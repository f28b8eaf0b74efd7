"""The command ``tenancy``, also ``python -m tenancy``; its subcommands are in ``tenancy.cli``."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Run the command with the arguments of the process, and return its exit code."""
    _open_closed_streams()
    if find_spec("typer") is None or find_spec("rich") is None:
        sys.stderr.write(
            "error: The command line needs the extra 'cli'.\n       pip install 'eventsourcing-sqlalchemy[cli]'\n"
        )
        return 2
    try:
        from tenancy.cli.run import hide_password, run  # noqa: PLC0415 (its imports may not be installed)

        hide_password(sys.argv[1:])
        return run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command starts, or while it ends
        return 130


def _open_closed_streams() -> None:
    """Open /dev/null for closed standard streams: otherwise the next file or connection would take their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their descriptors
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 (for the process)


if __name__ == "__main__":
    sys.exit(main())

"""Entry point of the command ``tenancy``, which is also ``python -m tenancy``."""

from __future__ import annotations

import gc
import os
import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Run the command with the arguments of this process, and return its exit code."""
    _open_closed_streams()
    if find_spec("typer") is None or find_spec("rich") is None:
        sys.stderr.write(
            "error: The command line needs the extra 'cli'.\n       pip install 'eventsourcing-sqlalchemy[cli]'\n"
        )
        return 2
    # Loading modules creates many objects that stay, and the collector would visit them many times. The command
    # enables it before it does anything itself.
    gc.disable()
    try:
        from tenancy.cli.run import hide_password, run  # noqa: PLC0415 (typer and rich are an extra)

        hide_password(sys.argv[1:])
        return run(sys.argv[1:])
    except KeyboardInterrupt:  # outside of the command's own handler
        return 130
    finally:
        gc.freeze()  # nothing is left to be collected: the process ends


def _open_closed_streams() -> None:
    """Open /dev/null in place of closed standard streams. Otherwise writing to them fails, and the next file or
    connection gets their descriptor.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in descriptor order
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 (open as long as the process)


if __name__ == "__main__":
    sys.exit(main())

"""Stop a server and remove its directory as soon as its owner is gone, however the owner died.

A process of its own, because nothing inside the owner survives SIGKILL. It compares its parent instead of waiting for a
pipe to close: a pipe stays open in whatever else the owner forked. Run as a script, standard library only, so that it
starts in milliseconds: `python -I watchdog.py OWNER_PID DIRECTORY PID_FILE`.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.2
STOP_SECONDS = 5.0


def is_running(pid: int) -> bool:
    """Tell whether a process of this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # It exists, under another user.
    return True


def stop(pid_file: Path) -> None:
    """Stop the process named in the first line of `pid_file`: at once, without waiting for its clients."""
    try:
        pid = int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return  # It never came up, or is gone already.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + STOP_SECONDS
        # Orphans stay in the process table until somebody reaps them; a server that ends removes the file.
        while pid_file.exists() and is_running(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)


def main(owner: int, directory: Path, pid_file: Path) -> None:
    """Wait until `owner` is no longer the parent of this process, then clean up."""
    # A terminal's Ctrl-C and a supervisor's SIGTERM are for the owner; the clean-up must outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while os.getppid() == owner:
        time.sleep(POLL_SECONDS)
    # In a loop: a server that was still starting when its owner died may write files after the first pass.
    while directory.exists():
        stop(pid_file)
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))

"""Stop a server and remove its directory when its owner dies, even by SIGKILL.

It is a separate process, because nothing inside the owner survives SIGKILL. It polls its parent's id instead of waiting
for a pipe to close, because other children of the owner inherit the pipe and keep it open. It runs as a script and
imports only the standard library, so that it starts in milliseconds:
`python -I watchdog.py OWNER_PID DIRECTORY PID_FILE`.
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
    """Tell whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # It exists, under another user.
    return True


def stop(pid_file: Path) -> None:
    """Stop the process named in the first line of `pid_file`, without waiting for its clients."""
    try:
        pid = int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return  # It never started, or has already stopped.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + STOP_SECONDS
        # An orphan stays in the process table until it is reaped; a server that stops removes the file.
        while pid_file.exists() and is_running(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)


def main(owner: int, directory: Path, pid_file: Path) -> None:
    """Wait until `owner` is no longer the parent process, then clean up."""
    # Ctrl-C and a supervisor's SIGTERM go to the owner; the clean-up must outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while os.getppid() == owner:
        time.sleep(POLL_SECONDS)
    # Repeatedly: a server that was still starting when its owner died may write files after the first pass.
    while directory.exists():
        stop(pid_file)
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))

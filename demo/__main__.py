"""Run the demo: `python -m demo --database sqlite`.

Exit status: 0 if all checks passed, 1 if a check failed, 2 if the demo could not start, 130 if it was interrupted.
"""

import argparse
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

import psutil

from demo.choice import CHOICES, choose
from demo.databases import UnusableDatabaseError
from demo.observation import settled
from demo.screen import CheckFailedError, Screen
from demo.story import tell

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_pool_logger = logging.getLogger("sqlalchemy.pool")
_pool_logger.addHandler(logging.NullHandler())  # Without any handler, Python writes to standard error.

# Set when a signal arrives in a finalizer: Python reports what is raised there, and goes on.
_lost_interrupt = threading.Event()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="See the package work.")
    parser.add_argument("--database", default="embedded", help=f"{CHOICES} (%(default)s)")
    wish = parser.parse_args(arguments).database
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # Some terminals cannot encode a tick.
    handlers = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    hook, sys.unraisablehook = sys.unraisablehook, _remember_lost_interrupt
    try:
        _run(wish, keep=os.environ.get("KEEP", "") not in ("", "0", "no"))
    except UnusableDatabaseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except CheckFailedError as error:
        sys.stderr.write(f"error: a check failed: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 130
    except BrokenPipeError:  # As in `make demo | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        _pool_logger.propagate = True
    return 0


def _run(wish: str, *, keep: bool) -> None:
    begin = time.monotonic()
    screen = Screen(_lost_interrupt)
    before = _running()
    database = choose(wish, screen, keep=keep)
    try:
        with database:
            try:
                tell(database, screen)
            finally:
                _ignore_signals()  # A signal must not interrupt the clean-up.
    finally:
        if database.kept:
            screen.say(f"Data kept: {database.kept}")
    left, running = database.remains(), settled(lambda: len(_running() - before))
    screen.check(
        not left and not running,
        "nothing left behind, 0 threads, 0 processes",
        f"left behind: {left or 'no data'}, {running} threads and processes",
    )
    fate = "" if keep else " No data kept (KEEP=1 keeps it)."
    screen.say(f"All {screen.checks} checks passed in {time.monotonic() - begin:.1f} s. Nothing is left running.{fate}")
    screen.say("Next: make demo DATABASE=sqlite | compose | <URL>      the code: demo/system.py, README.md")


def _running() -> set[object]:
    return {*threading.enumerate(), *psutil.Process().children(recursive=True)}


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    # The pool logs each connection that the interrupt closes; that is expected here. Its loggers are children of this
    # one, so disabling it would not silence them.
    _pool_logger.propagate = False
    raise KeyboardInterrupt


def _remember_lost_interrupt(lost: "sys.UnraisableHookArgs") -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _lost_interrupt.set()
    else:
        sys.__unraisablehook__(lost)


def _ignore_signals() -> None:
    for number in SIGNALS:
        # Not SIG_IGN: Python writes an error if it is set while such a signal is pending.
        signal.signal(number, lambda _number, _frame: None)


if __name__ == "__main__":
    sys.exit(main())

"""Print lines, tables and ticks. A tick is a check that passed; a failed check ends the demo."""

import sys
import threading
from collections.abc import Sequence


class CheckFailedError(Exception):
    """A claim of the demo is false; the message describes what was found instead."""


class Screen:
    """Prints to standard output and counts passed checks."""

    def __init__(self, lost_interrupt: threading.Event | None = None) -> None:
        self.checks = 0
        self._lost_interrupt = lost_interrupt

    def say(self, line: str = "") -> None:
        """Print a line and flush it; raises KeyboardInterrupt if an earlier one was lost."""
        if self._lost_interrupt is not None and self._lost_interrupt.is_set():
            self._lost_interrupt.clear()
            raise KeyboardInterrupt
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table; columns of numbers are aligned to the right."""
        lines = [list(header), *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        is_number = [any(isinstance(cell, int) for cell in column) for column in zip(*rows, strict=True)]
        for line in lines:
            cells = (
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, is_number, strict=True)
            )
            self.say(f"       {'   '.join(cells)}".rstrip())

    def check(self, holds: bool, claim: str, otherwise: str) -> None:
        """Print the claim with a tick if it holds; otherwise print what was found and raise CheckFailedError."""
        if not holds:
            self.say(f"       ✗ {otherwise}")
            raise CheckFailedError(otherwise)
        self.checks += 1
        self.say(f"       ✓ {claim}")

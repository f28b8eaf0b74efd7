"""What the demo prints: lines, tables, and ticks. A tick is a check that was executed; a failed one ends the demo."""

import sys
from collections.abc import Sequence


class CheckFailedError(Exception):
    """A claim of the demo does not hold; the message says what was found instead."""


class Screen:
    """Prints to the standard output and counts the checks that held."""

    def __init__(self) -> None:
        self.checks = 0

    def say(self, line: str = "") -> None:
        """Print a line at once, also into a pipe."""
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
        """Print the claim with a tick when it holds; otherwise what was found instead, and raise CheckFailedError."""
        if not holds:
            self.say(f"       ✗ {otherwise}")
            raise CheckFailedError(otherwise)
        self.checks += 1
        self.say(f"       ✓ {claim}")

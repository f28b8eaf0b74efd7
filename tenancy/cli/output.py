"""Write to the standard output: lines, tables, JSON. Nothing that somebody else wrote can change the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from tenancy.cli.shapes import details

if TYPE_CHECKING:
    from tenancy import Tenant

__all__ = [
    "CLOSED_PIPE",
    "json_of",
    "note",
    "printable",
    "quoted",
    "say",
    "shortened",
    "show_json",
    "show_pairs",
    "show_status",
    "show_table",
]

CLOSED_PIPE: Final = 141
"""The exit code when nobody reads any more: that of a process which SIGPIPE has ended."""

# Rich takes a second for some thousand rows.
_MANY: Final = 500

# Of what may be of any length, in a table on a terminal.
_LENGTH: Final = 200

_STYLES: Final = {
    "active": "green",
    "ok": "green",
    "suspended": "yellow",
    "warning": "yellow",
    "deleted": "red",
    "purging": "red",
    "failure": "red",
    "archived": "dim",
}


def printable(text: object) -> str:
    """Return a text with everything escaped that could move the cursor, change colours or turn the direction."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in str(text))


def quoted(slug: str) -> str:
    """Return a slug as it stands in a sentence."""
    return f"'{printable(slug)}'"


def shortened(text: str) -> str:
    """Return the beginning of a text for a table on a terminal, and all of it elsewhere."""
    return f"{text[:_LENGTH]}…" if len(text) > _LENGTH and sys.stdout.isatty() else text


def say(line: str = "") -> None:
    """Write a line, at once; the command ends when nobody reads it."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at the end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from None


def note(line: str) -> None:
    """Write a line to the standard error, for people: not a part of what the command returns."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def json_of(value: Any) -> str:
    """Return JSON in ASCII: it is right in every encoding, and has nothing that a terminal obeys."""
    return json.dumps(value, default=str)


def show_json(value: Any) -> None:
    """Write a value as JSON."""
    say(json.dumps(value, default=str, indent=2))


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table: on a terminal as wide as that, with long cells in several lines; otherwise a line for each row."""
    if not sys.stdout.isatty() or len(rows) > _MANY:
        _show_lines([header, *rows])
        return
    from rich.table import Table  # noqa: PLC0415 (slow, and --help needs no table)

    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    _print(table)


def show_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Write a table of names and values, without those that are None or empty."""
    rows = [(name, value) for name, value in pairs if value not in (None, "")]
    if not sys.stdout.isatty():
        _show_lines(rows)
        return
    from rich.table import Table  # noqa: PLC0415 (as above)

    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, _cell(value))
    _print(table)


def show_status(tenant: Tenant, *, as_json: bool) -> None:
    """Show the status of a tenant."""
    if as_json:
        show_json(details(tenant))
        return
    reads = ", can be read" if tenant.status == "suspended" and tenant.reads else ""
    say(f"{quoted(tenant.slug)} is {tenant.status}{reads}.")


def _show_lines(rows: Sequence[Sequence[object]]) -> None:
    from rich.cells import cell_len  # noqa: PLC0415 (as above)

    lines = [["" if cell is None else printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "   ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    say("\n".join(padded))


def _cell(value: object) -> Any:
    from rich.text import Text  # noqa: PLC0415 (as above)

    text = "" if value is None else printable(value)
    return Text(text, style=_STYLES.get(text, ""))  # a Text, so that no [markup] in it is obeyed


def _print(table: Any) -> None:
    from rich.console import Console  # noqa: PLC0415 (as above)

    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())

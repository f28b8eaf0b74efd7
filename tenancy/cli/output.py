"""Write lines, tables and JSON to standard output. Stored text is escaped, so that it cannot control the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from textwrap import indent
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
    "show_json_list",
    "show_long_table",
    "show_pairs",
    "show_status",
    "show_table",
]

CLOSED_PIPE: Final = 141
"""The exit code when the reader has closed the pipe: that of a process ended by SIGPIPE."""

# More rows than this are not formatted by Rich, which takes a second for some thousand.
_MANY: Final = 500

# Maximum length of free text in a table on a terminal.
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
    """Escape characters that could move the cursor, change colours or reverse the text direction."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in str(text))


def quoted(slug: str) -> str:
    """Return a slug in quotes, escaped."""
    return f"'{printable(slug)}'"


def shortened(text: str) -> str:
    """Truncate a text for a table on a terminal; return it unchanged elsewhere."""
    return f"{text[:_LENGTH]}…" if len(text) > _LENGTH and sys.stdout.isatty() else text


def say(line: str = "", *, end: str = "\n") -> None:
    """Write a line and flush. Exits when the reader has closed the pipe."""
    try:
        sys.stdout.write(f"{line}{end}")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes again at exit, which would fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from None


def note(line: str) -> None:
    """Write a line to standard error: a message for people, not part of the output."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def json_of(value: Any) -> str:
    """Return JSON in ASCII, which is valid in every encoding and free of control characters."""
    return json.dumps(value, default=str)


def show_json(value: Any) -> None:
    """Write a value as JSON."""
    say(json.dumps(value, default=str, indent=2))


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table: on a terminal fitted to its width, with long cells folded; elsewhere one line per row."""
    if not sys.stdout.isatty() or len(rows) > _MANY:
        _show_lines([header, *rows])
        return
    from rich.table import Table  # noqa: PLC0415 (slow; not needed by --help)

    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    _print(table)


def show_json_list(values: Iterable[Any]) -> None:
    """Write values as :func:`show_json` writes their list, with one of them in memory."""
    is_first = True
    for value in values:
        say("[" if is_first else ",")
        say(indent(json.dumps(value, default=str, indent=2), "  "), end="")
        is_first = False
    say("[]" if is_first else "\n]")


def show_long_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as :func:`show_table` does, with few rows in memory at a time; columns may grow further on."""
    remaining = iter(rows)
    widths = [0] * len(header)
    some = list(islice(remaining, _MANY))
    following = list(islice(remaining, _MANY))
    if not following:
        show_table(header, some)
        return
    lines: list[Sequence[object]] = [header, *some]
    while lines:
        widths = _show_lines(lines, widths)
        lines, following = following, list(islice(remaining, _MANY))


def show_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Write names and values, without those that are None or empty."""
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
    reads = "; reads are allowed" if tenant.status == "suspended" and tenant.reads else ""
    say(f"{quoted(tenant.slug)} is {tenant.status}{reads}.")


def _show_lines(rows: Sequence[Sequence[object]], least: Iterable[int] = repeat(0)) -> list[int]:
    """Write lines of columns that are at least so wide; return their widths."""
    from rich.cells import cell_len  # noqa: PLC0415 (as above)

    lines = [["" if cell is None else printable(cell) for cell in row] for row in rows]
    widths = [
        max(width, *map(cell_len, column)) for column, width in zip(zip(*lines, strict=True), least, strict=False)
    ]
    padded = (
        "   ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    say("\n".join(padded))
    return widths


def _cell(value: object) -> Any:
    from rich.text import Text  # noqa: PLC0415 (as above)

    text = "" if value is None else printable(value)
    return Text(text, style=_STYLES.get(text, ""))  # Text does not interpret [markup]


def _print(table: Any) -> None:
    from rich.console import Console  # noqa: PLC0415 (as above)

    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        say(line.rstrip())

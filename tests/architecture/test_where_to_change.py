"""The newcomer's table in docs/architecture.md names files and names that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "architecture.md"
CODE: Final = re.compile("`([^`]+)`")


def rows() -> list[tuple[str, ...]]:
    """Return the table's rows: the change, the file to open first, and what to look for."""
    table = PAGE.read_text(encoding="utf-8").split("## Where would I change X?")[1]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]


def find(path: str, first: Path) -> Path | None:
    """Return the file or folder of this path: from the root, from a package, or from a folder of the first file."""
    places = [ROOT, ROOT / "tenancy", ROOT / "eventsourcing_sqlalchemy", *first.relative_to(ROOT).parents]
    return next((ROOT / place / path for place in places if (ROOT / place / path).exists()), None)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_row_is_true(row: tuple[str, str, str]) -> None:
    opened, *others = CODE.findall(row[1])
    first = ROOT / opened
    assert first.is_file()
    files, names = [first], list[str]()
    for code in (*others, *CODE.findall(row[2])):
        if "/" in code or code.endswith(".py"):
            found = find(code, first)
            assert found is not None, code
            files += found.rglob("*.py") if found.is_dir() else [found]
        else:
            names.append(code.split(".")[-1].removesuffix("()"))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []

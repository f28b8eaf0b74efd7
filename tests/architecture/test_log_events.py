"""Every record of the package names an event, and the documentation lists events, fields and error codes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from eventsourcing_sqlalchemy.error_fields import CODES
from tenancy.errors import TenancyError
from tenancy.telemetry.logs import FIELDS

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
METHODS: Final = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for package in ("eventsourcing_sqlalchemy", "tenancy"):
        for path in (ROOT / package).rglob("*.py"):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def calls_without_an_event(tree: ast.Module) -> list[int]:
    """Return the lines of a module that log without the argument ``extra``."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METHODS
        and ast.unparse(node.func.value).endswith("logger")
        and "extra" not in [keyword.arg for keyword in node.keywords]
    ]


def events(tree: ast.Module) -> set[str]:
    """Return the event names in a module's dictionaries: those with a key ``event`` and a dot."""
    return {
        name.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "event"
        for name in ast.walk(value)
        if isinstance(name, ast.Constant) and isinstance(name.value, str) and "." in name.value
    }


def listed(heading: str) -> set[str]:
    """Return the names in the first column of the table below a heading."""
    section = PAGE.partition(f"### {heading}\n")[2].partition("\n#")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    rows = rows[1:] if rows and rows[0].strip() == "`code`" else rows  # the header
    return {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}


def codes(cls: type[TenancyError]) -> Iterator[str]:
    yield cls.code
    for each in cls.__subclasses__():
        if each.__module__.startswith("tenancy."):
            yield from codes(each)


def test_every_record_names_an_event() -> None:
    assert {name: lines for name, tree in trees() if (lines := calls_without_an_event(tree))} == {}


def test_a_record_without_an_event_is_noticed() -> None:
    """Proves that the test above can fail."""
    tree = ast.parse("logger.info('x')\nself._logger.warning('y')\nlogger.error('z', extra={'event': 'a.b'})")
    assert calls_without_an_event(tree) == [1, 2]
    assert events(tree) == {"a.b"}


def test_events_are_listed() -> None:
    used = set().union(*(events(tree) for name, tree in trees() if not name.endswith("telemetry/logs.py")))
    assert len(used) > 15
    assert listed("Event names") == used | {"python.warning", "log"}


def test_error_codes_are_listed() -> None:
    assert listed("Error codes") == {*codes(TenancyError), *CODES}


def test_fields_are_listed() -> None:
    always = {"at", "level", "event", "logger", "message"}
    assert listed("Keys") == {*always, *FIELDS, "trace_id", "span_id"}

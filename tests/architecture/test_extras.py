"""Each extra installs everything that its folder imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"eventsourcing_sqlalchemy", "tenancy"}


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the packages that a module requires, without optional imports."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Try(handlers=handlers) if any("Import" in ast.unparse(each.type or child) for each in handlers):
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import(names=names):
                yield from (each.name.partition(".")[0] for each in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case _:
                yield from imported(child)


@pytest.mark.parametrize("extra", ["cli", "testing"])
def test_a_folder_needs_the_extra_of_its_name_and_nothing_else(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
    installed = {re.match(r"[\w-]+", each)[0].lower() for each in wanted}  # type: ignore[index]
    distributions = packages_distributions()
    missing = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "tenancy" / extra).rglob("*.py")
        for name in imported(ast.parse(path.read_text(encoding="utf-8")))
        if name not in OURS | sys.stdlib_module_names
        and not installed & {each.lower() for each in distributions.get(name, [])}
    }
    assert missing == set()


def test_a_missing_dependency_is_noticed() -> None:
    """Proves that the test above can fail."""
    tree = ast.parse(
        "import psutil\ntry:\n    import a\nexcept ImportError:\n    pass\ndef f():\n    from b.c import d\n"
    )
    assert list(imported(tree)) == ["psutil", "b"]


def test_only_the_test_of_the_demo_imports_it() -> None:
    importing = {
        path.relative_to(ROOT).as_posix()
        for folder in (*OURS, "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if "demo" in imported(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert importing == {"tests/acceptance/test_demo.py"}

"""Rules for all of tenancy: module docstrings, and documentation of exports."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import tenancy

PACKAGE: Final = Path(tenancy.__file__).parent
MODULES: Final = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def name_of(module: str) -> str:
    """Return a module's import name."""
    return f"tenancy.{module.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


LIBRARY: Final = [name_of(module) for module in MODULES if not module.endswith("__main__.py")]


def exported() -> Iterator[tuple[str, Any]]:
    """Yield the modules' own exports with their qualified names."""
    for name in LIBRARY:
        module = importlib.import_module(name)
        for exported_name in getattr(module, "__all__", ()):
            thing = getattr(module, exported_name)
            if getattr(thing, "__module__", name) == name:
                yield f"{name}.{exported_name}", thing


def members(qualified_name: str, cls: type) -> Iterator[tuple[str, Any]]:
    """Yield a class's public callables and properties, without those of other packages."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        function = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
        module = getattr(function, "__module__", None) or ""
        if not name.startswith("_") and callable(function) and module.startswith("tenancy"):
            yield f"{qualified_name}.{name}", getattr(cls, name)


def undocumented(things: list[tuple[str, Any]]) -> list[str]:
    """Return the names without a docstring, own or inherited."""
    return sorted({name for name, thing in things if not (inspect.getdoc(thing) or "").strip()})


@pytest.mark.parametrize("module", MODULES)
def test_module_has_a_docstring(module: str) -> None:
    source = (PACKAGE / module).read_text(encoding="utf-8")
    documentation = inspect.cleandoc(source).partition('"""')[2].partition('"""')[0]
    assert source.startswith('"""')
    assert len(documentation) > 10


def test_every_exported_name_is_documented() -> None:
    things = [(name, thing) for name, thing in exported() if isinstance(thing, type) or inspect.isfunction(thing)]
    assert len(things) > 50
    # Inherited docstrings do not count: a subclass says what it adds.
    assert [name for name, thing in things if not (thing.__doc__ or "").strip()] == []


def test_every_public_member_of_an_exported_class_is_documented() -> None:
    classes = [(name, thing) for name, thing in exported() if isinstance(thing, type)]
    found = [member for name, thing in classes for member in members(name, thing)]
    assert len(found) > 80
    assert undocumented(found) == []


def test_missing_documentation_is_noticed() -> None:
    """Proves that the test above can fail."""

    def public(self: object) -> None: ...

    public.__module__ = "tenancy.x"
    cls = type("Exported", (), {"public": public})
    assert undocumented(list(members("x.Exported", cls))) == ["x.Exported.public"]


def test_every_export_exists() -> None:
    for name in tenancy.__all__:
        assert getattr(tenancy, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        tenancy.Nothing  # noqa: B018 (it must raise)


def test_variables_of_the_process_are_read_in_one_place() -> None:
    """In settings.py. The command line and the test fixtures may read them, too."""
    for module in MODULES:
        if not module.startswith(("cli/", "testing/")) and module != "settings.py":
            source = (PACKAGE / module).read_text(encoding="utf-8")
            assert not re.search(r"\bos\.(environ|getenv)\b|import (environ|getenv)", source), module


def test_every_error_has_a_code_of_its_own() -> None:
    errors = importlib.import_module("tenancy.errors")
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert len(set(codes)) == len(codes)
    tree = errors.__doc__ or ""
    assert all(name in tree for name in errors.__all__), "listed in the tree of the module"

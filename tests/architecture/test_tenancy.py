"""What must hold for tenancy as a whole: what a module says of itself, and what of it is documented."""

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
    """Return a module as it is imported."""
    return f"tenancy.{module.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


LIBRARY: Final = [name_of(module) for module in MODULES if not module.endswith("__main__.py")]


def exported() -> Iterator[tuple[str, Any]]:
    """Yield what the modules export, with its qualified name, where it is defined."""
    for name in LIBRARY:
        module = importlib.import_module(name)
        for exported_name in getattr(module, "__all__", ()):
            thing = getattr(module, exported_name)
            if getattr(thing, "__module__", name) == name:
                yield f"{name}.{exported_name}", thing


def members(qualified_name: str, cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public callables and properties that a class defines and does not take from another package."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        function = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
        module = getattr(function, "__module__", None) or ""
        if not name.startswith("_") and callable(function) and module.startswith("tenancy"):
            yield f"{qualified_name}.{name}", getattr(cls, name)


def undocumented(things: list[tuple[str, Any]]) -> list[str]:
    """Return the names of what has no docstring, its own or that of what it overrides."""
    return sorted({name for name, thing in things if not (inspect.getdoc(thing) or "").strip()})


@pytest.mark.parametrize("module", MODULES)
def test_module_says_what_it_is_for(module: str) -> None:
    source = (PACKAGE / module).read_text(encoding="utf-8")
    documentation = inspect.cleandoc(source).partition('"""')[2].partition('"""')[0]
    assert source.startswith('"""')
    assert len(documentation) > 10


def test_every_exported_name_is_documented() -> None:
    things = [(name, thing) for name, thing in exported() if isinstance(thing, type) or inspect.isfunction(thing)]
    assert len(things) > 50
    # Not what a class inherits: a subclass says what it adds.
    assert [name for name, thing in things if not (thing.__doc__ or "").strip()] == []


def test_every_public_member_of_an_exported_class_is_documented() -> None:
    classes = [(name, thing) for name, thing in exported() if isinstance(thing, type)]
    found = [member for name, thing in classes for member in members(name, thing)]
    assert len(found) > 80
    assert undocumented(found) == []


def test_missing_documentation_is_noticed() -> None:
    """The proof that the test above bites."""

    def public(self: object) -> None: ...

    public.__module__ = "tenancy.x"
    cls = type("Exported", (), {"public": public})
    assert undocumented(list(members("x.Exported", cls))) == ["x.Exported.public"]


def test_what_the_package_exports_is_what_it_has() -> None:
    for name in tenancy.__all__:
        assert getattr(tenancy, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        tenancy.Nothing  # noqa: B018 (the question is what it raises)


def test_variables_of_the_process_are_read_in_one_place() -> None:
    """In settings.py; the command line, which is a process, and the fixtures for tests may too."""
    for module in MODULES:
        if not module.startswith(("cli/", "testing/")) and module != "settings.py":
            source = (PACKAGE / module).read_text(encoding="utf-8")
            assert not re.search(r"\bos\.(environ|getenv)\b|import (environ|getenv)", source), module


def test_every_error_has_a_code_of_its_own() -> None:
    errors = importlib.import_module("tenancy.errors")
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert len(set(codes)) == len(codes)
    tree = errors.__doc__ or ""
    assert all(name in tree for name in errors.__all__), "drawn in the tree of the module"

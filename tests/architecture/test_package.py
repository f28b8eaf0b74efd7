"""Rules for the whole package: where databases may be named, and what is exported."""

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import pytest
from eventsourcing.persistence import InfrastructureFactory

from eventsourcing_sqlalchemy.factory import SQLAlchemyFactory
from tests.architecture.source import MODULES, PACKAGE, module_names, words

ROOTS: Final = [PACKAGE, PACKAGE.parent / "tenancy"]
DATABASES: Final = re.compile("postgres|psycopg|pg8000|libpq|sqlite|citus|bouncer", re.IGNORECASE)

# Module, part of the text, reason.
NAMED_OUTSIDE_OF_DIALECTS: Final = [
    ("alembic.py", "sa.Uuid().with_variant(sa.BINARY(length=16), 'sqlite')", "as in tables.py, in generated code"),
    ("errors.py", "SQLITE_ERROR", "an error code, in one table with those of the SQL standard"),
    ("errors.py", "sqlite_errorname", "the driver's attribute for the code"),
    ("factory.py", "SQLALCHEMY_URL=sqlite:///school.db or postgresql://", "an example in a message"),
    ("notifications/listener.py", "a direct connection through psycopg2 or psycopg", "a remedy in a message"),
    ("settings.py", "Set it, e.g. sqlite:///school.db or postgresql://", "an example in a message"),
    ("settings.py", "The form is postgresql://user:password@host/database or", "an example in a message"),
    ("settings.py", "postgres", "postgres:// is another way to write postgresql://"),
    ("settings.py", "postgresql", "postgres:// is another way to write postgresql://"),
    ("engine_settings.py", "sqlite_synchronous", "the name of a variable that users set"),
    ("settings.py", "sqlite_synchronous", "the name of a variable that users set"),
    ("settings.py", "SQLALCHEMY_SQLITE_SYNCHRONOUS", "the name of a variable that users set"),
    ("tables.py", "sqlite", "SQLAlchemy's way to give a column another type in one database"),
    ("transfer/archive_tables.py", "sqlite", "the scheme of the URL: an archive is a file of this kind"),
    ("tables.py", "sqlite_autoincrement", "SQLAlchemy's option of a table"),
]


def modules() -> Iterator[ModuleType]:
    for name in module_names():
        yield importlib.import_module(name)


def named(sources: dict[str, str]) -> list[tuple[str, int, str]]:
    """Return (module, line, text) of database names outside the dialects and the steps of migrations."""
    return [
        (module, line, text)
        for module, source in sorted(sources.items())
        if not module.startswith(("dialects/", "migrations/"))
        for line, text in words(source)
        if DATABASES.search(text)
    ]


def is_excepted(module: str, text: str, exception: tuple[str, str, str]) -> bool:
    where, what, _ = exception
    return module == where and (text == what or (" " in what and what in text))


def test_no_timing_depends_on_the_wall_clock() -> None:
    """The clock may be set at any time, and a running time.sleep() may even fail then, unlike Event.wait()."""
    sources = {path: path.read_text(encoding="utf-8") for root in ROOTS for path in root.rglob("*.py")}
    assert [
        str(path) for path, source in sources.items() if re.search(r"\btime\.time(_ns)?\(|from time import", source)
    ] == []
    assert [module for module, source in MODULES.items() if "time.sleep" in source] == []


def test_databases_are_named_in_dialects_only() -> None:
    found = [
        f"{module}:{line}: {text}"
        for module, line, text in named(MODULES)
        if not any(is_excepted(module, text, exception) for exception in NAMED_OUTSIDE_OF_DIALECTS)
    ]
    assert found == [], "ask the dialect for a capability instead, or list it above with a reason"


def test_exceptions_are_needed() -> None:
    found = named(MODULES)
    unused = [
        exception
        for exception in NAMED_OUTSIDE_OF_DIALECTS
        if not any(is_excepted(module, text, exception) for module, _, text in found)
    ]
    assert unused == []


def test_every_kind_of_database_name_is_noticed() -> None:
    """Proves that the tests above can fail."""
    source = '"""About SQLite."""\nimport sqlite3\nfrom psycopg2 import connect\n# about postgresql\n'
    source += 'if name == "postgresql":\n    x.is_sqlite = f"{pg8000} of {sqlite_path}"\n'
    source += 'def on_postgres(psycopg):\n    """Use PgBouncer."""\n    run(sqlite="a" "PgBouncer")\nclass Citus: ...\n'
    assert sorted(text for _, _, text in named({"x.py": source})) == [
        "Citus",
        "aPgBouncer",
        "is_sqlite",
        "on_postgres",
        "pg8000",
        "postgresql",
        "psycopg",
        "psycopg2",
        "sqlite",
        "sqlite3",
        "sqlite_path",
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_package_has_no_tenant_code(module: str) -> None:
    assert not re.search("tenan", MODULES[module], re.IGNORECASE)


@pytest.mark.parametrize("name", module_names())
def test_module_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert len(module.__doc__) > 20


def exported() -> Iterator[tuple[str, Any]]:
    """Yield the modules' exports with their qualified names."""
    for module in modules():
        for name in getattr(module, "__all__", ()):
            yield f"{module.__name__}.{name}", getattr(module, name)


def members(qualified_name: str, cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public callables and properties of a class that this package defines."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        function = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
        module = getattr(function, "__module__", None) or ""
        if not name.startswith("_") and callable(function) and module.startswith(PACKAGE.name):
            yield f"{qualified_name}.{name}", getattr(cls, name)


def undocumented(things: list[tuple[str, Any]]) -> list[str]:
    return sorted(
        {
            name
            for name, thing in things
            if (callable(thing) or isinstance(thing, property) or hasattr(thing, "func"))
            and not (inspect.getdoc(thing) or "").strip()
        }
    )


def test_every_exported_name_exists_and_is_documented() -> None:
    things = [(name, thing) for name, thing in exported() if isinstance(thing, type) or inspect.isfunction(thing)]
    assert len(things) > 40
    own = [(name, thing) for name, thing in things if thing.__module__.startswith(PACKAGE.name)]
    # Inherited docstrings do not count: a subclass says what it adds.
    assert [name for name, thing in own if not (thing.__doc__ or "").strip()] == []


def test_every_public_member_of_an_exported_class_is_documented() -> None:
    things = [
        (name, thing)
        for name, thing in exported()
        if isinstance(thing, type) and thing.__module__.startswith(PACKAGE.name)
    ]
    found = [member for name, thing in things for member in members(name, thing)]
    assert len(found) > 60
    assert undocumented(found) == []


def test_missing_documentation_is_noticed() -> None:
    """Proves that the test above can fail."""

    def public(self: object) -> None: ...

    public.__module__ = PACKAGE.name
    cls = type("Exported", (SQLAlchemyFactory,), {"public": public, "__module__": PACKAGE.name})
    assert undocumented(list(members("x.Exported", cls))) == ["x.Exported.public"]


@pytest.mark.parametrize("name", ["eventsourcing_sqlalchemy", "eventsourcing_sqlalchemy.factory"])
def test_module_has_exactly_one_factory(name: str) -> None:
    """The library's `construct()` inspects every class of the module, like this test."""
    factories = {
        member
        for member in vars(importlib.import_module(name)).values()
        if isinstance(member, type)
        and issubclass(member, InfrastructureFactory)
        and not getattr(member, "__parameters__", None)
    }
    assert factories == {SQLAlchemyFactory}
    assert not inspect.isabstract(SQLAlchemyFactory)


def test_variables_are_read_in_one_place() -> None:
    """In settings.py, through the library's Environment. No module reads the process's variables."""
    for module, source in MODULES.items():
        found = [text for _, text in words(source) if text in ("environ", "getenv", "environb")]
        assert found == [], module
        if module != "settings.py":
            lookups = re.findall(r"\benv(?:ironment)?\.get\(|\benv\[", source)
            assert lookups == [], module

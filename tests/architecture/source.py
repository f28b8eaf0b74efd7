"""The package's source, for the architecture tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import eventsourcing_sqlalchemy

PACKAGE = Path(eventsourcing_sqlalchemy.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def module_names() -> list[str]:
    """Return the import names of the modules."""
    parts = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sorted(MODULES)]
    return [PACKAGE.name if part == "__init__" else f"{PACKAGE.name}.{part}" for part in parts]


def words(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every identifier and string of a module, without docstrings and comments."""
    tree = ast.parse(source)
    documentation = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documentation.add(node.value)
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if node not in documentation:
                yield node.lineno, text
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text):
                yield node.lineno, text
            case ast.FunctionDef(name=text) | ast.ClassDef(name=text):
                yield node.lineno, text
            case ast.keyword(arg=str(text)):
                yield node.value.lineno, text
            case ast.ImportFrom(module=str(text)):
                yield node.lineno, text
            case ast.alias(name=text):
                yield node.lineno, text

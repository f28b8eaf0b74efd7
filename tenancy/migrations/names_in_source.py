"""Expand the names in a generated revision: ``'notes'`` becomes ``own_name('notes')``.

Alembic writes names as text. Their places in the calls of its operations are known, so columns of the same name stay.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["expand_names"]

# The arguments of an operation that are names of tables, indexes or constraints, by position and by keyword.
_OF_TABLE: Final = {
    "create_table": (0,),
    "drop_table": (0,),
    "add_column": (0,),
    "drop_column": (0,),
    "alter_column": (0,),
    "batch_alter_table": (0,),
    "create_table_comment": (0,),
    "drop_table_comment": (0,),
    "create_index": (0, 1),
    "drop_index": (0,),
    "create_unique_constraint": (0, 1),
    "create_foreign_key": (0, 1, 2),
    "drop_constraint": (0, 1),
}
# The operations in a `with op.batch_alter_table()` know their table.
_IN_BATCH: Final = {
    "create_index": (0,),
    "drop_index": (0,),
    "create_unique_constraint": (0,),
    "create_foreign_key": (0, 1),
    "drop_constraint": (0,),
}
_CONSTRAINTS: Final = frozenset(
    {"PrimaryKeyConstraint", "UniqueConstraint", "CheckConstraint", "ForeignKeyConstraint", "ExcludeConstraint"}
)
_OF_REFERENCES: Final = 1


def expand_names(source: str) -> str:
    """Return the source of a revision with the names of tables, indexes and constraints expanded."""
    lines = source.splitlines(keepends=True)
    for node, text in sorted(_replacements(ast.parse(source)), key=lambda each: _start(each[0]), reverse=True):
        line = lines[node.lineno - 1].encode()
        assert node.end_col_offset is not None
        lines[node.lineno - 1] = (line[: node.col_offset] + text.encode() + line[node.end_col_offset :]).decode()
    return "".join(lines)


def _start(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _replacements(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, operation = node.func.value, node.func.attr
        if not isinstance(owner, ast.Name):
            continue
        if owner.id == "op":
            yield from _names(node, _OF_TABLE, operation)
        elif owner.id == "batch_op":
            yield from _names(node, _IN_BATCH, operation)
        if operation in _CONSTRAINTS:
            yield from _names(node, {}, operation)
        if operation == "ForeignKeyConstraint" and len(node.args) > _OF_REFERENCES:
            yield from _references(node.args[_OF_REFERENCES])


def _names(call: ast.Call, positions: Mapping[str, tuple[int, ...]], operation: str) -> Iterator[tuple[ast.expr, str]]:
    arguments = [call.args[position] for position in positions.get(operation, ()) if position < len(call.args)]
    arguments += [keyword.value for keyword in call.keywords if keyword.arg in ("name", "table_name")]
    for argument in arguments:
        constant = argument
        # op.f() says that no naming convention applies. own_name() gives a final name, too.
        if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Attribute) and argument.func.attr == "f":
            constant = argument.args[0]
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
            yield argument, f"own_name({constant.value!r})"


def _references(columns: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    for each in columns.elts if isinstance(columns, ast.List) else ():
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            table, _, column = each.value.rpartition(".")
            yield each, f'f"{{own_name({table!r})}}.{column}"'

"""Names in generated revisions are expanded where they name tables, indexes and constraints."""

from __future__ import annotations

import pytest

from tenancy.migrations.names_in_source import expand_names


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("op.drop_table('notes')", "op.drop_table(own_name('notes'))"),
        ("op.add_column('notes', sa.Column('notes'))", "op.add_column(own_name('notes'), sa.Column('notes'))"),
        (
            "op.create_index(op.f('ix'), 'notes', ['notes'])",
            "op.create_index(own_name('ix'), own_name('notes'), ['notes'])",
        ),
        ("op.drop_index('ix', table_name='notes')", "op.drop_index(own_name('ix'), table_name=own_name('notes'))"),
        (
            "op.create_foreign_key(None, 'a', 'b', ['a'], ['b'])",
            "op.create_foreign_key(None, own_name('a'), own_name('b'), ['a'], ['b'])",
        ),
        (
            "sa.ForeignKeyConstraint(['a'], ['b.c', 'b.ü'], name='fk')",
            "sa.ForeignKeyConstraint(['a'], [f\"{own_name('b')}.c\", f\"{own_name('b')}.ü\"], name=own_name('fk'))",
        ),
        ("batch_op.drop_column('notes')", "batch_op.drop_column('notes')"),
        ("batch_op.drop_constraint('uq', type_='unique')", "batch_op.drop_constraint(own_name('uq'), type_='unique')"),
        ("other.drop_table('notes')", "other.drop_table('notes')"),
        ("op.execute('notes')", "op.execute('notes')"),
        ("x = 'ü'; op.drop_table('ü')", "x = 'ü'; op.drop_table(own_name('ü'))"),
    ],
)
def test_expansion(written: str, expanded: str) -> None:
    assert expand_names(f"{written}\n") == f"{expanded}\n"

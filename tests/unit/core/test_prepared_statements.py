"""Prepared statements: placeholders, when a statement is prepared, and which are evicted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsourcing_sqlalchemy.dialects.postgresql import prepared as postgresql_prepared
from eventsourcing_sqlalchemy.dialects.postgresql.prepared import PreparedStatements, numbered

RUNS_BEFORE, MAX_STATEMENTS = 5, 100
STATEMENT = 'SELECT id FROM "t" WHERE a = %s AND b = %s'


def sql(statements: PreparedStatements, statement: str) -> tuple[str, str]:
    """Return the SQL that prepares a statement, if it is due, and the SQL that runs it."""
    prepare, prepared = statements.find(statement)
    return prepare, statement if prepared is None else prepared.execute


def plain(*texts: str) -> list[tuple[str, str]]:
    """Return the SQL of a statement that is not prepared."""
    return [("", text) for text in texts]


def sixth(statements: PreparedStatements, statement: str) -> tuple[str, str]:
    """Return the SQL that prepares a statement on its sixth run, and the SQL that runs it."""
    assert [sql(statements, statement) for _ in range(RUNS_BEFORE)] == plain(statement) * RUNS_BEFORE
    return sql(statements, statement)


def parsed(found_sql: tuple[str, str]) -> tuple[list[str], str, str, str]:
    """Return the deallocated names, the prepared name, its body, and the arguments of its execution."""
    prepare, run = found_sql
    found = re.fullmatch(r"((?:DEALLOCATE \w+; )*)PREPARE (\w+) AS (.*)", prepare, re.DOTALL)
    assert found is not None, prepare
    assert run.startswith(f"EXECUTE {found[2]}("), run
    return re.findall(r"DEALLOCATE (\w+); ", found[1]), found[2], found[3], run.removeprefix(f"EXECUTE {found[2]}")


def test_statement_is_prepared_when_it_is_run_for_the_sixth_time_and_then_executed() -> None:
    statements = PreparedStatements()
    forgotten, name, body, arguments = parsed(sixth(statements, STATEMENT))
    assert (forgotten, body, arguments) == ([], 'SELECT id FROM "t" WHERE a = $1 AND b = $2', "(%s, %s)")
    assert [sql(statements, STATEMENT) for _ in range(3)] == plain(f"EXECUTE {name}(%s, %s)") * 3


def test_statements_are_counted_separately() -> None:
    statements = PreparedStatements()
    others = [f"{STATEMENT} LIMIT {number}" for number in range(MAX_STATEMENTS - 1)]
    for _ in range(RUNS_BEFORE):
        assert [sql(statements, one) for one in (STATEMENT, *others)] == plain(STATEMENT, *others)
    names = [parsed(sql(statements, one))[1] for one in (STATEMENT, *others)]
    assert len(set(names)) == MAX_STATEMENTS


def test_names_are_identifiers_that_need_no_quotes_and_fit() -> None:
    _, name, _, _ = parsed(sixth(PreparedStatements(), STATEMENT))
    assert re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name)


def test_nothing_is_prepared_where_it_is_off() -> None:
    statements = PreparedStatements(is_on=False)
    assert [sql(statements, STATEMENT) for _ in range(2 * RUNS_BEFORE)] == plain(STATEMENT) * 2 * RUNS_BEFORE


def test_counts_of_rare_statements_are_evicted() -> None:
    statements = PreparedStatements()
    for _ in range(RUNS_BEFORE):
        sql(statements, STATEMENT)
    for number in range(MAX_STATEMENTS):
        sql(statements, f"SELECT %s, {number}")
    # Its count starts again.
    parsed(sixth(statements, STATEMENT))


def test_least_recently_used_statement_is_evicted_for_the_one_hundred_and_first() -> None:
    statements = PreparedStatements()
    texts = [f"SELECT %s, {number}" for number in range(MAX_STATEMENTS)]
    names = {text: parsed(sixth(statements, text))[1] for text in texts}
    sql(statements, texts[0])
    forgotten, name, _, _ = parsed(sixth(statements, STATEMENT))
    assert forgotten == [names[texts[1]]]
    assert name not in names.values()
    assert [sql(statements, texts[0])] == plain(f"EXECUTE {names[texts[0]]}(%s)")
    assert [sql(statements, texts[1])] == plain(texts[1])


def test_discarded_statement_is_counted_again() -> None:
    statements = PreparedStatements()
    _, name, _, _ = parsed(sixth(statements, STATEMENT))
    assert statements.discard(STATEMENT) == name
    assert statements.discard(STATEMENT) == ""
    parsed(sixth(statements, STATEMENT))


def test_name_stands_for_one_statement_on_every_connection() -> None:
    """A pooler hands server processes from client to client, and a name must run the same statement everywhere."""
    texts = [STATEMENT, STATEMENT.replace('"t"', '"T"'), STATEMENT.replace('"t"', '"t%%"')]
    one = [parsed(sixth(PreparedStatements(), text))[1] for text in texts]
    statements = PreparedStatements()
    other = [parsed(sixth(statements, text))[1] for text in reversed(texts)][::-1]
    assert [one.index(name) for name in other if name in one] in ([], [0, 1, 2])


@pytest.mark.parametrize(
    ("statement", "body"),
    [
        ('SELECT "a%%sb" WHERE x = %s', 'SELECT "a%sb" WHERE x = $1'),
        ('SELECT "%%%s"', 'SELECT "%$1"'),
        ('SELECT "%%%%s", %s', 'SELECT "%%s", $1'),
        ('SELECT "50%%", %s::uuid[], %s', 'SELECT "50%", $1::uuid[], $2'),
        ("SELECT " + ", ".join(["%s"] * 12), "SELECT " + ", ".join(f"${number}" for number in range(1, 13))),
    ],
)
def test_percent_sign_in_a_name_is_not_a_placeholder(statement: str, body: str) -> None:
    _, _, found, arguments = parsed(sixth(PreparedStatements(), statement))
    assert found == body
    assert arguments.count("%s") == body.count("$")


@given(st.lists(st.one_of(st.just("%s"), st.text(alphabet="ab%s\"'\\$1 é\n", max_size=6)), min_size=1, max_size=12))
def test_prepared_statement_equals_the_statement_that_the_driver_sends(pieces: list[str]) -> None:
    """With parameters $1, $2 and so on, both texts are equal."""
    # As `Dialect.render` treats names.
    statement = " ".join(piece if piece == "%s" else piece.replace("%", "%%") for piece in [*pieces, "%s"])
    count = pieces.count("%s") + 1
    prepare, run = sixth(PreparedStatements(), statement)
    parameters = tuple(f"${number}" for number in range(1, count + 1))
    _, _, body, arguments = parsed((prepare, run % parameters))
    assert body == statement % parameters
    assert arguments == f"({', '.join(parameters)})"


def test_texts_of_large_batches_are_not_kept() -> None:
    before = postgresql_prepared._numbered.cache_info().currsize  # noqa: SLF001 (not visible otherwise)
    assert numbered("VALUES " + ", ".join(["(%s)"] * 1000)).endswith("($1000)")
    assert postgresql_prepared._numbered.cache_info().currsize == before  # noqa: SLF001 (as above)

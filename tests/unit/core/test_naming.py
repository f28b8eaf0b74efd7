"""Names of schemas and tables are used unchanged, always quoted, and never confused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from eventsourcing.persistence import ProgrammingError
from hypothesis import given
from hypothesis import strategies as st

from eventsourcing_sqlalchemy.dialects import dialect_for
from eventsourcing_sqlalchemy.errors import SettingsError
from eventsourcing_sqlalchemy.naming import (
    TableName,
    check_identifier,
    environment_name,
    expand_template,
    is_extended,
    quote,
    shorten_identifier,
)
from eventsourcing_sqlalchemy.tables import TableSpec

# Ordinary letters, and those that separate names.
identifiers = st.text(alphabet="ab.\"'%_- é{}\\;<>", min_size=1, max_size=6)
tables = st.builds(TableName, st.one_of(st.none(), identifiers), identifiers)


def parsed(sql: str) -> list[str]:
    """Return the identifiers of a qualified name, as a database reads it."""
    assert re.fullmatch(r'"(?:[^"]|"")+"(?:\."(?:[^"]|"")+")?', sql, re.DOTALL)
    return [part.replace('""', '"') for part in re.findall(r'"((?:[^"]|"")+)"', sql)]


@given(tables)
def test_name_is_read_as_it_was_meant(table: TableName) -> None:
    assert parsed(str(table)) == [part for part in (table.schema, table.name) if part is not None]


@given(tables, tables)
def test_different_tables_have_different_names_and_keys(one: TableName, other: TableName) -> None:
    assert (one == other) == (str(one) == str(other)) == (one.key == other.key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TableName("a", "b.c"), TableName("a.b", "c")),
        (TableName(None, "a.b"), TableName("a", "b")),
        (TableName(None, '"a"."b"'), TableName("a", "b")),
        (TableName("a", "B"), TableName("a", "b")),
        (TableName("é", "b"), TableName("e\u0301", "b")),
    ],
)
def test_tables_that_look_alike_are_told_apart(one: TableName, other: TableName) -> None:
    assert str(one) != str(other)
    assert one.key != other.key


@given(identifiers, identifiers, st.integers(min_value=12, max_value=30))
def test_a_shortened_name_fits_and_is_unique(one: str, other: str, limit: int) -> None:
    long = [shorten_identifier(f"prefix_{name * 9}", limit) for name in (one, other)]
    assert all(len(name.encode()) <= limit for name in long)
    assert (long[0] == long[1]) == (one == other)
    assert shorten_identifier(one * 9, None) == one * 9


@given(identifiers, identifiers, st.integers(1, 9), st.one_of(st.none(), st.integers(20, 30)))
def test_a_shortened_name_is_known_by_its_beginning(beginning: str, rest: str, times: int, limit: int | None) -> None:
    begin = f"{beginning * times}_"
    assert is_extended(shorten_identifier(begin + rest, limit), begin, limit)
    assert not is_extended(f"x{shorten_identifier(begin + rest, limit)}"[:limit], begin, limit)
    assert not is_extended(beginning * times, begin, limit)


def test_key_is_the_same_in_every_process_and_fits_a_lock() -> None:
    # Python's hash() is not: other processes would take other locks.
    assert TableName("school", "dogs_events").key == -2424012544541807031
    code = "from eventsourcing_sqlalchemy.naming import TableName; print(TableName('school', 'dogs_events').key)"
    process = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert int(process.stdout) == TableName("school", "dogs_events").key


@given(tables)
def test_key_has_64_bits(table: TableName) -> None:
    assert -(2**63) <= table.key < 2**63


@given(identifiers)
def test_names_in_statements_are_read_as_they_were_meant(name: str) -> None:
    """Whether or not the driver treats a percent sign as a placeholder."""
    table = TableName("schema", name)
    for driver in ("psycopg2", "psycopg"):
        dialect = dialect_for("postgresql", driver)
        assert dialect.render(table) % () == str(table)
        assert dialect.render(table, parameters=False) == str(table)
    assert dialect_for("postgresql", "pg8000").render(table) == str(table)
    assert dialect_for("sqlite", "pysqlite").render(TableName(None, name)) == quote(name)


@given(identifiers, identifiers)
def test_names_in_table_definitions_are_read_as_they_were_meant(schema: str, name: str) -> None:
    spec = TableSpec("events", TableName(schema, name))
    create, index = spec.ddl(sa.dialects.postgresql.dialect)
    assert create.startswith(f"CREATE TABLE IF NOT EXISTS {quote(schema)}.{quote(name)} (\n")
    assert f" {quote(name + '_aggregate_idx')} ON {quote(schema)}.{quote(name)} (" in index


# -- limits --


@pytest.mark.parametrize("name", ["x" * 63, "é" * 31 + "x", "日" * 21, '"' * 63])
def test_63_bytes_are_enough_for_postgresql(name: str) -> None:
    assert len(name.encode()) == 63
    check_identifier("table", name, 63)


@pytest.mark.parametrize("name", ["x" * 64, "é" * 32, "日" * 21 + "x"])
def test_64_bytes_are_refused_with_their_number(name: str) -> None:
    assert len(name.encode()) == 64
    with pytest.raises(
        ProgrammingError, match=r"^Identifier too long: the table .* has 64 bytes, the limit is 63"
    ) as raised:
        check_identifier("table", name, 63)
    assert repr(name) in str(raised.value)
    check_identifier("table", name, None)


def test_limit_includes_names_derived_from_the_name() -> None:
    check_identifier("table", "x" * 49, 63, suffix="_aggregate_idx")
    with pytest.raises(ProgrammingError, match=r"has 64 bytes .*'_aggregate_idx'"):
        check_identifier("table", "x" * 50, 63, suffix="_aggregate_idx")


@pytest.mark.parametrize(
    ("name", "what"), [("", "empty"), ("a\0b", "NUL"), ("\0", "NUL"), ("a\ud800", "not valid Unicode")]
)
@pytest.mark.parametrize("limit", [63, None])
def test_names_that_no_database_accepts_are_refused(name: str, what: str, limit: int | None) -> None:
    with pytest.raises(ProgrammingError, match=f"The schema .*{what}"):
        check_identifier("schema", name, limit)


@pytest.mark.parametrize("name", ["Größe", "O'Brien", 'say "hi"', "a b", "100 %", "日本", "; DROP TABLE x; --", "{}"])
def test_other_names_are_accepted(name: str) -> None:
    check_identifier("schema", name, 63)


# -- templates --


@given(st.text(), st.text(min_size=1))
def test_template_without_braces_is_used_unchanged(text: str, application: str) -> None:
    text = text.replace("{", "").replace("}", "")
    assert expand_template(text, application, "X") == text
    assert expand_template(f"{text}{{application}}{text}", application, "X") == text + application.lower() + text


@given(st.text(alphabet="{}aplicton", min_size=1))
def test_template_with_other_braces_is_refused(text: str) -> None:
    if "{" in text.replace("{application}", "") or "}" in text.replace("{application}", ""):
        with pytest.raises(SettingsError, match=r"^X=.*the only placeholder is \{application\}"):
            expand_template(text, "School", "X")
    else:
        assert "{" not in expand_template(text, "School", "X")


# -- variables --


@given(st.text())
def test_name_of_a_variable_can_be_exported(application: str) -> None:
    assert re.fullmatch("[A-Z0-9_]*", environment_name(application))


@pytest.mark.parametrize(
    ("application", "expected"),
    [
        ("TrainingSchool", "TRAININGSCHOOL"),
        ("acme-school", "ACME_SCHOOL"),
        ("a.b c", "A_B_C"),
        ("é1_", "_1_"),
        ("", ""),
    ],
)
def test_name_of_a_variable(application: str, expected: str) -> None:
    assert environment_name(application) == expected

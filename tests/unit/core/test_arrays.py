"""A batch's columns as arrays: reading returns what was packed, and joined batches equal one batch."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.persistence import DataError, StoredEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsourcing_sqlalchemy.dialects.postgresql.arrays import Arrays, BinaryArrays, TextArrays
from eventsourcing_sqlalchemy.dialects.postgresql.dialect import PostgreSQLDialect
from eventsourcing_sqlalchemy.engine_settings import OriginatorIDType

texts = st.one_of(
    st.sampled_from(["", "NULL", "null", "{}", '{"a"}', "a,b", '"', "\\", '\\"', "\\x00", " ", "\n", "é😀", "%s", "'"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
# A number stands for that many zero bytes, because generated examples are printed.
states = st.one_of(st.binary(max_size=50), st.sampled_from([b"", b"\0", b"\\x00", b'"', b"\xff\0", 0, 100_000]))
shapes = st.sampled_from([bytes, bytearray, memoryview])
versions = st.one_of(st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from([0, -1, 2**63 - 1, -(2**63) + 1, True]))

Content = tuple[Any, int, str, bytes | int, Callable[[bytes], Any]]


def calls_with(originator_ids: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Content]]]:
    content: Any = st.tuples(originator_ids, versions, texts, states, shapes)
    return st.lists(st.lists(content, min_size=1, max_size=6), min_size=1, max_size=4)


batches = st.one_of(
    st.tuples(st.just("uuid"), calls_with(st.uuids())),
    st.tuples(st.just("text"), calls_with(st.one_of(texts, st.uuids()))),
)


def event_of(content: Content) -> StoredEvent:
    originator_id, version, topic, state, shape = content
    return StoredEvent(originator_id, version, topic, shape(bytes(state)))


def arrays(form: str, originator_id_type: OriginatorIDType) -> Arrays:
    bind = PostgreSQLDialect("psycopg").bind_originator_id(originator_id_type)
    return BinaryArrays(bind, originator_id_type) if form == "binary" else TextArrays(bind)


def read_binary(array: bytes) -> tuple[int, list[bytes]]:
    """Read an array as PostgreSQL's array_recv does; return the element type and the elements."""
    dimensions, has_nulls, element_type, count, lower_bound = struct.unpack_from("!iiIii", array)
    assert (dimensions, has_nulls, lower_bound) == (1, 0, 1)
    elements, position = [], 20
    for _ in range(count):
        (length,) = struct.unpack_from("!i", array, position)
        assert length >= 0
        elements.append(bytes(array[position + 4 : position + 4 + length]))
        assert len(elements[-1]) == length
        position += 4 + length
    assert position == len(array), "something is left behind the last element"
    return element_type, elements


def read_text(array: str) -> list[str]:
    """Read an array literal as PostgreSQL's array_in does."""
    assert array[0] + array[-1] == "{}"
    found = list(re.finditer(r'"((?:[^"\\]+|\\.)*)"|([^",{}\\\s]+)', array[1:-1], re.DOTALL))
    assert ",".join(match[0] for match in found) == array[1:-1]
    return [match[2] or re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL) for match in found]


def read(form: str, originator_id_type: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return the rows that the server would read from the parameters."""
    if form == "text":
        ids, numbers, topics, encoded = map(read_text, parameters)
        columns: list[list[Any]] = [[*map(int, numbers)], topics, [bytes.fromhex(state[2:]) for state in encoded]]
        return list(zip(ids, *columns, strict=True))
    types, (packed_ids, packed_numbers, packed_topics, packed_states) = zip(*map(read_binary, parameters), strict=True)
    assert types == (2950 if originator_id_type == "uuid" else 25, 20, 25, 17)
    assert [type(array).oid for array in parameters] == [2951 if types[0] == 2950 else 1009, 1016, 1009, 1001]
    ids = [str(UUID(bytes=i)) for i in packed_ids] if originator_id_type == "uuid" else [i.decode() for i in packed_ids]
    columns = [[struct.unpack("!q", n)[0] for n in packed_numbers], [t.decode() for t in packed_topics], packed_states]
    return list(zip(ids, *columns, strict=True))


@pytest.mark.parametrize("form", ["text", "binary"])
@settings(deadline=None)
@given(batches)
def test_packed_events_are_read_back_and_joined_ones_are_those_of_one_batch(
    form: str, batch: tuple[OriginatorIDType, list[list[Content]]]
) -> None:
    originator_id_type, contents = batch
    calls = [[event_of(content) for content in call] for call in contents]
    packer = arrays(form, originator_id_type)
    events = [event for call in calls for event in call]
    packed = [packer.pack(call) for call in calls]
    parameters = packer.parameters(packer.join(packed), len(events))
    assert parameters == packer.parameters(packer.pack(events), len(events))
    expected = [(str(e.originator_id), int(e.originator_version), e.topic, bytes(e.state)) for e in events]
    assert read(form, originator_id_type, parameters) == expected
    for call, columns in zip(calls, packed, strict=True):
        assert read(form, originator_id_type, packer.parameters(columns, len(call))) == expected[: len(call)]
        del expected[: len(call)]


@pytest.mark.parametrize("form", ["text", "binary"])
def test_packed_state_is_that_of_the_call_whatever_becomes_of_its_buffer(form: str) -> None:
    buffer = bytearray(b"before")
    packer = arrays(form, "text")
    columns = packer.pack([StoredEvent("id", 1, "topic", memoryview(buffer))])  # type: ignore[arg-type]
    buffer[:] = b"after!"
    assert read(form, "text", packer.parameters(columns, 1)) == [("id", 1, "topic", b"before")]


@pytest.mark.parametrize("form", ["text", "binary"])
@pytest.mark.parametrize(
    ("originator_id_type", "wrong"),
    [
        *(("uuid", wrong) for wrong in ("3f0e7c2e-0a8f-4d6c-9d4d-3f4a6a1f7c11", None, 5, b"0123456789abcdef")),
        *(("text", wrong) for wrong in (None, 5, b"id", "nul\0", "surrogate\udc80")),
    ],
)
def test_id_of_a_wrong_type_cannot_be_packed(form: str, originator_id_type: OriginatorIDType, wrong: Any) -> None:
    with pytest.raises(DataError, match="originator_id"):
        arrays(form, originator_id_type).pack([StoredEvent(wrong, 1, "topic", b"")])

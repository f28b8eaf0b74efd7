"""Encode the columns of a batch as four arrays, as literals or in PostgreSQL's binary format.

Every driver sends literals unchanged. The binary format takes half the bytes and no parsing, but needs a driver that is
configured for it. Its layout (``array_recv`` in PostgreSQL), big-endian: number of dimensions, NULL flag, element type,
size and lower bound of each dimension, then length and bytes of each element.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, ClassVar
from uuid import UUID

from eventsourcing.persistence import StoredEvent

__all__ = ["BINARY_ARRAYS", "Arrays", "BinaryArray", "BinaryArrays", "TextArrays", "transcode"]

Columns = tuple[Any, Any, Any, Any]


class Arrays(ABC):
    """An array format. Elements are packed first, so that several calls' elements can be joined into one array."""

    def __init__(self, bind_originator_id: Callable[[UUID | str], str]) -> None:
        self._bind_originator_id = bind_originator_id

    @abstractmethod
    def pack(self, events: Sequence[StoredEvent]) -> Columns:
        """Pack the elements of originator_id, originator_version, topic and state."""

    @abstractmethod
    def join(self, packed: Sequence[Columns]) -> Columns:
        """Join packed elements in order."""

    @abstractmethod
    def parameters(self, columns: Columns, count: int) -> Columns:
        """Return the four array parameters for ``count`` events."""


class TextArrays(Arrays):
    """Array literals."""

    def pack(self, events: Sequence[StoredEvent]) -> Columns:
        bind = self._bind_originator_id
        return (
            ",".join([_quoted(bind(event.originator_id)) for event in events]),
            ",".join([str(int(event.originator_version)) for event in events]),
            ",".join([_quoted(event.topic) for event in events]),
            ",".join(['"\\\\x' + bytes(event.state).hex() + '"' for event in events]),
        )

    def join(self, packed: Sequence[Columns]) -> Columns:
        ids, versions, topics, states = (",".join(column) for column in zip(*packed, strict=True))
        return ids, versions, topics, states

    def parameters(self, columns: Columns, count: int) -> Columns:
        ids, versions, topics, states = columns
        return "{" + ids + "}", "{" + versions + "}", "{" + topics + "}", "{" + states + "}"


class BinaryArray(bytes):
    """An array in the binary format. The driver derives its type from the class."""

    oid: ClassVar[int]
    element_oid: ClassVar[int]
    holds_text: ClassVar[bool] = False
    """Whether the elements are UTF-8 text, which the server decodes from the connection's encoding."""


class _UUIDs(BinaryArray):
    oid, element_oid = 2951, 2950


class _Integers(BinaryArray):
    oid, element_oid = 1016, 20


class _Texts(BinaryArray):
    oid, element_oid = 1009, 25
    holds_text = True


class _Bytes(BinaryArray):
    oid, element_oid = 1001, 17


BINARY_ARRAYS: tuple[type[BinaryArray], ...] = (_UUIDs, _Integers, _Texts, _Bytes)

_HEADER = Struct("!iiIii")
_LENGTH = Struct("!i")
_INTEGER = Struct("!iq")
_UUID_LENGTH = _LENGTH.pack(16)


class BinaryArrays(Arrays):
    """Arrays in PostgreSQL's binary format."""

    def __init__(self, bind_originator_id: Callable[[UUID | str], str], originator_id_type: str) -> None:
        super().__init__(bind_originator_id)
        self._has_uuids = originator_id_type == "uuid"

    def pack(self, events: Sequence[StoredEvent]) -> Columns:
        bind, length, integer = self._bind_originator_id, _LENGTH.pack, _INTEGER.pack
        states = [bytes(event.state) for event in events]
        return (
            b"".join([self._packed_id(bind, event.originator_id) for event in events]),
            b"".join([integer(8, event.originator_version) for event in events]),
            b"".join([_packed_topic(event.topic) for event in events]),
            b"".join([part for state in states for part in (length(len(state)), state)]),
        )

    def _packed_id(self, bind: Callable[[UUID | str], str], originator_id: UUID | str) -> bytes:
        if self._has_uuids and isinstance(originator_id, UUID):
            return _UUID_LENGTH + originator_id.bytes
        return _packed_text(bind(originator_id))

    def join(self, packed: Sequence[Columns]) -> Columns:
        ids, versions, topics, states = (b"".join(column) for column in zip(*packed, strict=True))
        return ids, versions, topics, states

    def parameters(self, columns: Columns, count: int) -> Columns:
        ids, versions, topics, states = columns
        id_type = _UUIDs if self._has_uuids else _Texts
        return (
            _array(id_type, ids, count),
            _array(_Integers, versions, count),
            _array(_Texts, topics, count),
            _array(_Bytes, states, count),
        )


def _array(cls: type[BinaryArray], elements: bytes, count: int) -> BinaryArray:
    return cls(_HEADER.pack(1, 0, cls.element_oid, count, 1) + elements)


def _packed_text(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded


_packed_topic = lru_cache(maxsize=1024)(_packed_text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def transcode(array: bytes, encoding: str) -> bytes:
    """Convert a text array to the encoding of a connection that does not use UTF-8."""
    parts, position = [array[: _HEADER.size]], _HEADER.size
    while position < len(array):
        (length,) = _LENGTH.unpack_from(array, position)
        position += _LENGTH.size + length
        text = array[position - length : position].decode().encode(encoding)
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)

"""SHA-256 digests of events, chained in id order, and of snapshots and positions, in any order.

The digest of an event is over its id, originator id, version, topic and state as stored, so that it is equal on every
database, and encrypted states stay encrypted. Every 1,000 events make a block. The digest of a block is over that of
the block before it and those of its events, so that it stands for all events so far, and a store that has got more
events since has the same digests at its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Final

__all__ = [
    "BLOCK_EVENTS",
    "DIGEST_BYTES",
    "FINGERPRINT_BYTES",
    "Block",
    "Chain",
    "EventRow",
    "SnapshotRow",
    "event_digest",
    "fingerprints_of",
    "row_sum",
]

EventRow = tuple[int, bytes | str, int, str, bytes]
"""Id, originator id (16 bytes for a UUID), version, topic and state."""

SnapshotRow = tuple[bytes | str, int, str, bytes]
"""Originator id, version, topic and state."""

BLOCK_EVENTS: Final = 1000
DIGEST_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 8
_HEAD: Final = Struct(">qqIII").pack
_FINGERPRINT: Final = Struct(">q8s")


def event_digest(row: EventRow) -> bytes:
    """Return the digest of an event."""
    number, originator_id, version, topic, state = row
    originator = originator_id.encode() if isinstance(originator_id, str) else originator_id
    name = topic.encode()
    head = _HEAD(number, version, len(originator), len(name), len(state))
    return sha256(b"".join((head, originator, name, state))).digest()


@dataclass(frozen=True, slots=True)
class Block:
    """Up to 1,000 events, in id order, and the digest of all events to its end."""

    number: int
    count: int
    """Of its own events. Only the last block has fewer than 1,000."""
    last_id: int
    digest: bytes
    fingerprints: bytes
    """Id and the first 8 bytes of the digest of each event, 16 bytes an event: they name the one that differs."""

    def events(self) -> dict[int, bytes]:
        """Return the first 8 bytes of each event's digest, by id."""
        return dict(_FINGERPRINT.iter_unpack(self.fingerprints))


_NONE: Final = Block(0, 0, 0, bytes(DIGEST_BYTES), b"")


def fingerprints_of(digests: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the fingerprints of a block whose events have these ids and digests."""
    return b"".join([_FINGERPRINT.pack(number, digest) for number, digest in digests])


class Chain:
    """Computes the blocks of an application's events. For one thread.

    ``before`` is a full block to continue after; None starts with the first event.
    """

    def __init__(self, before: Block | None = None) -> None:
        self._before = before or _NONE
        self._digests: list[bytes] = []
        self._ids: list[int] = []

    def add(self, rows: Sequence[EventRow]) -> list[Block]:
        """Add events, and return the blocks that they complete."""
        blocks: list[Block] = []
        start = 0
        while start < len(rows):
            some = rows[start : start + BLOCK_EVENTS - len(self._ids)]
            start += len(some)
            self._digests += map(event_digest, some)
            self._ids += [row[0] for row in some]
            if len(self._ids) == BLOCK_EVENTS:
                self._before = self._block()
                blocks.append(self._before)
                self._digests, self._ids = [], []
        return blocks

    def rest(self) -> Block | None:
        """Return the block of the events that complete none, or None without such events."""
        return self._block() if self._ids else None

    def head(self) -> tuple[int, int, str]:
        """Return the number of events so far, the last id, and the digest as hexadecimal text."""
        last = self.rest() or self._before
        full = self._before.number * BLOCK_EVENTS
        return full + len(self._ids), last.last_id, last.digest.hex()

    def _block(self) -> Block:
        return Block(
            self._before.number + 1,
            len(self._ids),
            self._ids[-1],
            sha256(self._before.digest + b"".join(self._digests)).digest(),
            fingerprints_of(zip(self._ids, self._digests, strict=True)),
        )


def row_sum(rows: Iterable[SnapshotRow]) -> int:
    """Return the sum of the digests of snapshots.

    Modulo 2**256 it is a digest that does not depend on their order: databases sort text in different orders.
    """
    return sum(int.from_bytes(event_digest((0, *row)), "big") for row in rows)

"""The digests of events: fixed, because archives hold them."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsourcing_sqlalchemy.transfer.digest import BLOCK_EVENTS, Block, Chain, EventRow, event_digest, row_sum

EVENT = "68248c14682f7c88baf2c8de1c6b07e0b6c18b67ec5773c6d884551cad3a6fe8"
BLOCK = "a8a21d1c2d2a02d1a9fe9fcdc76265811e216621709985e75b6aeba24ad286f2"
HEAD = "792186b034561e9e7ce3192fb07b89bd5e1b3aaaa3f2d9cf51ffb873f381ce94"

ROW: EventRow = (7, UUID(int=5).bytes, 3, "module:Größe", b"state")


def test_digest_of_an_event_never_changes() -> None:
    assert event_digest(ROW).hex() == EVENT


def test_digest_of_a_chain_never_changes() -> None:
    chain = Chain()
    (full,) = chain.add([(number, b"x" * 16, number, "topic", b"") for number in range(1, BLOCK_EVENTS + 2)])
    assert (full.number, full.count, full.last_id, full.digest.hex()) == (
        1,
        1000,
        1000,
        BLOCK,
    )
    assert chain.head() == (1001, 1001, HEAD)


@pytest.mark.parametrize(
    "other",
    [
        (8, *ROW[1:]),
        (ROW[0], UUID(int=6).bytes, *ROW[2:]),
        (*ROW[:2], 4, *ROW[3:]),
        (*ROW[:3], "module:Größe2", ROW[4]),
        (*ROW[:4], b"State"),
        (*ROW[:3], "module:Größes", b"tate"),  # the same bytes, divided elsewhere
    ],
)
def test_every_part_of_an_event_counts(other: EventRow) -> None:
    assert event_digest(other) != event_digest(ROW)


@given(st.lists(st.integers(1, 700), max_size=8))
def test_pages_make_no_difference(sizes: list[int]) -> None:
    rows: list[EventRow] = [(number, b"x" * 16, number, "topic", b"") for number in range(1, sum(sizes) + 1)]
    whole, paged = Chain(), Chain()
    expected = whole.add(rows)
    found: list[Block] = []
    for size in sizes:
        found += paged.add(rows[:size])
        del rows[:size]
    assert found == expected
    assert (paged.rest(), paged.head()) == (whole.rest(), whole.head())
    if expected:
        continued = Chain(expected[-1])
        assert continued.head() == (BLOCK_EVENTS * len(expected), expected[-1].last_id, expected[-1].digest.hex())


def test_order_of_snapshots_makes_no_difference() -> None:
    first, second = (UUID(int=1).bytes, 1, "topic", b"a"), (UUID(int=2).bytes, 1, "topic", b"b")
    assert row_sum([first, second]) == row_sum([second]) + row_sum([first])
    assert row_sum([first]) != row_sum([second])

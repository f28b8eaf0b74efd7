"""Slugs: all spellings have one form, and confusable ones are refused."""

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenancy.errors import InvalidSlug
from tenancy.model.slugs import MAX_LENGTH, normalize, readable


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("acme", "acme"),
        ("ACME", "acme"),
        ("Straße", "strasse"),
        ("ﬁsh", "fish"),
        ("Ünï-cödé x", "ünï-cödé x"),
        ("u\u0308", "ü"),
        ("\uff21\uff23\uff2d\uff25", "acme"),
        ("\u03a3\u0391\u03a3", "\u03c3\u03b1\u03c3"),
        ("a.b", "a.b"),
        ("東京", "東京"),
    ],
)
def test_spellings_of_a_slug_have_one_form(written: str, normal: str) -> None:
    assert normalize(written) == normal


@pytest.mark.parametrize(
    ("slug", "fault"),
    [
        ("", "is empty"),
        (" acme", "space at an end"),
        ("acme ", "space at an end"),
        ("acme\u3000", "space at an end"),
        ("a/b", "has a slash"),
        ("a\uff0fb", "has a slash"),
        (".", "directory"),
        ("..", "directory"),
        ("\u2025", "directory"),
        ("a\0b", "U+0000"),
        ("a\nb", "U+000A"),
        ("a\x7fb", "U+007F"),
        ("a\u200bb", "U+200B"),
        ("a\u200db", "U+200D"),
        ("a\u202eb", "U+202E"),
        ("a\u2066b", "U+2066"),
        ("a\u00adb", "U+00AD"),
        ("\ufeffacme", "U+FEFF"),
        ("a\u2028b", "U+2028"),
        ("a\ue000b", "U+E000"),
        ("a\ud800b", "U+D800"),
        ("a\ufe0fb", "U+FE0F"),
        ("a\U000e0101", "U+E0101"),
        ("a\u115fb", "U+115F"),
        ("a\u3164b", "U+3164"),
        ("a\u034fb", "U+034F"),
        ("a\u2800b", "U+2800"),
        ("a" * (MAX_LENGTH + 1), "more than 100"),
        ("\ufdfa" * 10, "more than 100"),
    ],
)
def test_invalid_slug_is_refused(slug: str, fault: str) -> None:
    with pytest.raises(InvalidSlug, match="The slug ") as caught:
        normalize(slug)
    assert fault in str(caught.value)
    # The message contains no control characters, and shortens a long slug.
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500
    assert ascii(caught.value.tenant) == ascii(slug[: MAX_LENGTH + 1])


def test_longest_slug_is_accepted() -> None:
    assert normalize("a" * MAX_LENGTH) == "a" * MAX_LENGTH


def test_every_character_has_a_stable_form() -> None:
    for character in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(character) in ("Cn", "Co", "Cs"):
            continue
        try:
            normal = normalize(f"a{character}")
        except InvalidSlug:
            continue
        assert normalize(normal) == normal
        assert not any(unicodedata.category(character).startswith("C") for character in normal)


@given(st.text(max_size=30))
@example("\u0345\u0399")
@example("\u1fb3\u0313")
def test_a_slug_is_its_own_slug(text: str) -> None:
    try:
        normal = normalize(text)
    except InvalidSlug:
        return
    assert normalize(normal) == normal
    assert normal == normalize(normal.upper()) or normal.upper().casefold() != normal.casefold()
    assert normal.strip() == normal
    assert "/" not in normal
    assert 0 < len(normal) <= MAX_LENGTH


@pytest.mark.parametrize("slug", ["acme", "a", "7", "a-b", "A1", "x" * 63])
def test_label_of_a_host_name_is_accepted(slug: str) -> None:
    assert normalize(slug, "dns") == slug.lower()


@pytest.mark.parametrize("slug", ["-a", "a-", "a.b", "a_b", "a b", "ü", "x" * 64, "a\n", "٣"])
def test_other_slugs_are_refused_where_only_labels_are_accepted(slug: str) -> None:
    with pytest.raises(InvalidSlug):
        normalize(slug, "dns")


@given(st.text(max_size=30), st.integers(0, 30))
def test_readable_part_is_plain(text: str, length: int) -> None:
    part = readable(text, length)
    assert len(part) <= length
    assert all(character in "abcdefghijklmnopqrstuvwxyz0123456789" for character in part)


def test_readable_part_drops_accents() -> None:
    assert readable("ünï-cödé x", 20) == "unicodex"

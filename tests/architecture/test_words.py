"""Phrases that read like a translation do not occur in code, tests, help or docs."""

import ast
import re
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("eventsourcing_sqlalchemy", "tenancy", "demo", "benchmarks", "tests")
WORDS: Final = (
    "mend",
    "mends",
    "mended",
    "nobody",
    "somebody",
    "whoever",
    "for ever",
    "to be had",
    "at hand",
    "is none",
    "are none",
    "in a ring",
    "come to be",
    "comes to be",
    "begins anew",
    "anew",
    "borne",
    "anybody",
    "everybody",
    "those who",
    "there to be",
    "again and again",
)
# Not "is None", which is code.
LISTED: Final = re.compile(
    rf"\b({'|'.join(WORDS)})\b".replace(" ", r"\s+").replace("none", "(?-i:none|NONE)"), re.IGNORECASE
)

# File -> why it may use a listed word. Remove a file once it uses none.
ALLOWED: Final[dict[str, str]] = {
    "tenancy/testing/local_server.py": "the name of a system account",
    "tests/architecture/test_words.py": "the list itself",
}


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.py")
    yield from (ROOT / "docs").rglob("*.md")
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md")


def texts(name: str, content: str) -> Iterator[str]:
    """Yield the texts of a file: a whole page; or a module's strings, comment blocks, and names of tests."""
    if not name.endswith(".py"):
        yield content
        return
    for node in ast.walk(ast.parse(content)):
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.FunctionDef(name=name) if name.startswith("test_"):
                yield name.replace("_", " ")
    comments = [
        (token.start[0], token.string.lstrip("# "))
        for token in tokenize.generate_tokens(StringIO(content).readline)
        if token.type == tokenize.COMMENT
    ]
    block: list[str] = []
    for index, (line, comment) in enumerate(comments):
        if index and line != comments[index - 1][0] + 1:
            yield "\n".join(block)
            block = []
        block.append(comment)
    yield "\n".join(block)


def found(name: str, content: str) -> list[str]:
    """Return the listed words in a file's texts."""
    return [match[1] for text in texts(name, content) for match in LISTED.finditer(text)]


def hits() -> dict[str, list[str]]:
    words = {path.relative_to(ROOT).as_posix(): found(path.name, path.read_text(encoding="utf-8")) for path in files()}
    return {name: sorted(set(listed)) for name, listed in words.items() if listed}


def test_listed_words_do_not_occur() -> None:
    assert {name: words for name, words in hits().items() if name not in ALLOWED} == {}, "use plain English"


def test_allowed_files_need_it() -> None:
    assert sorted(set(ALLOWED) - set(hits())) == [], "remove these files from the list above"
    assert all(len(reason) > 10 for reason in ALLOWED.values())


@pytest.mark.parametrize("word", WORDS)
def test_each_word_is_noticed(word: str) -> None:
    """Proves that the tests above can fail."""
    first, _, rest = word.partition(" ")
    for source in (
        f'"""A {word}."""\n',
        f'x = f"A {{y}} {word.upper()}" "!"\n',
        f"x = 1  # {word}\n",
        f"# {first}\n# {rest or first}\n",
        f"def test_a_{word.replace(' ', '_')}_b(): ...\n",
    ):
        assert [each.lower().split() for each in found("x.py", source)][:1] == [word.split()]
    assert found("x.md", f"A [{word}](x)\n") == [word]
    assert found("x.py", "# recommend; whether it is None\nmend = nobody = 1\n") == []

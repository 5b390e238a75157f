"""Code and docs use standard terms: docs/glossary.md has them."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

CODE = [
    path
    for folder in ("shared", "services", "deploy", "bench", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)
]
TEXTS = [
    *CODE,
    *sorted((ROOT / "services").rglob("*.html")),
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "glossary.md"),
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
]
"""The texts for readers. The glossary quotes the words that it replaces."""
PHRASES = re.compile(
    r"\b[Hh]onou?r|\bvouch|\b[Aa]new\b|\b[Oo]nce more\b|[Ww]hoever may|[Ww]ho may say|\blet in\b|\bis none\b"
    r"|[Ss]ee there\b|as it should be"
)
NAMES = {"asked", "each", "found", "given", "got", "heard", "kept", "made", "taken", "told", "LOT", "MOST"}
"""Participles and pronouns, which do not say what a value is."""


def test_no_text_has_a_phrase_that_was_replaced():
    assert not [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PHRASES.search(line)
    ]


def test_a_variable_is_named_after_its_value():
    assert not [
        f"{path.relative_to(ROOT)}:{token.start[0]}: {token.line.strip()}"
        for path in CODE
        for token in names(path)
        if token.string in NAMES
    ]


def names(path: Path) -> Iterator[tokenize.TokenInfo]:
    """The names in a module, except hypothesis' ``given``."""
    code = path.read_text()
    imported = {"given"} if "from hypothesis import" in code else set()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.NAME and token.string not in imported:
            yield token

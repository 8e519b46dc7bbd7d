"""Classes of characters by which two ways of writing differ: capitals, punctuation, digits, and single letters."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

APOSTROPHES = "'\u2019\u02bc\u2018`\u00b4"
"""Signs that people type for one another. No rule counts them, because a model has to guess which one was typed."""
INSIDE_WORDS = frozenset(f"{APOSTROPHES}-\u2010\u2011")


class CharacterCounts(NamedTuple):
    """Characters of some texts, counted by class."""

    letters: int
    capitals: int
    """Upper-case letters."""
    punctuation: int
    """Signs of Unicode's class P, without apostrophes and hyphens."""
    digits: int
    each: Counter[str]
    """Characters in lower case, without spaces, apostrophes and hyphens."""


def count_characters(texts: Iterable[str]) -> CharacterCounts:
    """Count the characters of texts by class, after NFC normalisation."""
    each: Counter[str] = Counter()
    for text in texts:
        each.update(unicodedata.normalize("NFC", text))
    lower: Counter[str] = Counter()
    for character, count in each.items():
        if not character.isspace() and character not in INSIDE_WORDS:
            lower[character.lower()] += count
    return CharacterCounts(
        letters=sum(count for character, count in each.items() if character.isalpha()),
        capitals=sum(count for character, count in each.items() if character.isupper()),
        punctuation=sum(count for sign, count in each.items() if is_punctuation(sign)),
        digits=sum(count for character, count in each.items() if character.isdigit()),
        each=lower,
    )


def is_punctuation(character: str) -> bool:
    """Return True for a punctuation sign that is neither an apostrophe nor a hyphen."""
    return unicodedata.category(character).startswith("P") and character not in INSIDE_WORDS

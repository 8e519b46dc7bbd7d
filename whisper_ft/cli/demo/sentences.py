"""Distinct, grammatical sentences of four or five words, the same for the same seed."""

import random
import re
from collections.abc import Mapping

from whisper_ft.cli.demo.grammars import GRAMMARS, Grammar

LANGUAGES = tuple(GRAMMARS)
APOSTROPHES = ("'", "'", "\u2019", "\u02bc")  # as people type them: mostly ASCII, then the typographer's and the letter
_SLOT = re.compile(r"{(\w+)}")
_WORD = re.compile(r"[^\W\d_](?:[\w\u0980-\u09ff]|['\u2019\u02bc](?=\w))*")  # Bengali block: vowel signs are no \w
_SHORT_U = re.compile(r"(?<=[аеёіоуыэюя] )у")
_MAX_REPEATS = 2_000  # in a row: hardly anything new is left then


def sentences(language: str, count: int, seed: int) -> list[str]:
    """`count` sentences, no two with the same words; a longer list begins with the shorter one of the same seed."""
    grammar = _grammar(language)
    rng = random.Random(f"{language} {seed}")  # a text seeds the same stream on every platform and Python
    found: dict[str, str] = {}
    repeats = 0
    while len(found) < count:
        raw = _spell(_expand("sentence", grammar, rng), language, rng)
        repeats = repeats + 1 if plain(raw) in found else 0
        if repeats == _MAX_REPEATS:
            raise ValueError(f"the demo has about {len(found):,} sentences in {language!r}, {count:,} were asked for")
        found.setdefault(plain(raw), raw)
    return list(found.values())


def plain(text: str) -> str:
    """The words alone: lower case, no punctuation, the ASCII apostrophe. Two sentences are one if this is equal."""
    return " ".join(_WORD.findall(text.lower())).replace("\u2019", "'").replace("\u02bc", "'")


def vocabulary(language: str) -> list[str]:
    """Every word of the language's grammar in lower case, sorted."""
    texts = (text for options in _grammar(language).values() for text in options)
    return sorted({word for text in texts for word in plain(_SLOT.sub(" ", text)).split()})


def _grammar(language: str) -> Grammar:
    if language not in GRAMMARS:
        raise ValueError(f"the demo has no sentences in {language!r}, only in {', '.join(LANGUAGES)}")
    return GRAMMARS[language]


def _expand(slot: str, grammar: Mapping[str, tuple[str, ...]], rng: random.Random) -> str:
    """One text for the slot: an alternative by chance, its own slots filled the same way."""
    alternatives = grammar[slot]
    # random() is the one method whose sequence Python promises to keep.
    chosen = alternatives[int(rng.random() * len(alternatives))]
    return _SLOT.sub(lambda inner: _expand(inner[1], grammar, rng), chosen)


def _spell(text: str, language: str, rng: random.Random) -> str:
    """The sentence as a person would type it: capital letter, one kind of apostrophe, Belarusian у shortened to ў."""
    apostrophe = APOSTROPHES[int(rng.random() * len(APOSTROPHES))]
    if language == "be":
        text = _SHORT_U.sub("ў", text)
    return (text[0].upper() + text[1:]).replace("'", apostrophe)

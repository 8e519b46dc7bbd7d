"""Distinct, grammatical sentences of four or five words; the same seed gives the same sentences."""

import random
import re
from collections.abc import Mapping

from whisper_ft.cli.demo.grammars import GRAMMARS, Grammar

LANGUAGES = tuple(GRAMMARS)
APOSTROPHES = ("'", "'", "\u2019", "\u02bc")  # as typed: mostly ASCII, then the typographic one and the letter
_SLOT = re.compile(r"{(\w+)}")
_WORD = re.compile(r"[^\W\d_](?:[\w\u0980-\u09ff]|['\u2019\u02bc](?=\w))*")  # Bengali block: vowel signs are no \w
_SHORT_U = re.compile(r"(?<=[аеёіоуыэюя] )у")
_MAX_REPEATS = 2_000  # repeated sentences in a row; after so many, hardly any new sentence is left


def sentences(language: str, count: int, seed: int) -> list[str]:
    """Make `count` sentences, no two with the same words. A shorter list of the same seed is the beginning of a longer.

    Raises ValueError if the language has no grammar, or not so many sentences.
    """
    grammar = _grammar(language)
    rng = random.Random(f"{language} {seed}")  # a text seeds the same stream on every platform and in every Python
    texts: dict[str, str] = {}
    repeats = 0
    while len(texts) < count:
        raw = _spell(_expand("sentence", grammar, rng), language, rng)
        repeats = repeats + 1 if plain(raw) in texts else 0
        if repeats == _MAX_REPEATS:
            raise ValueError(f"the demo has about {len(texts):,} sentences in {language!r}, {count:,} were asked for")
        texts.setdefault(plain(raw), raw)
    return list(texts.values())


def plain(text: str) -> str:
    """Return the words of a text in lower case, without punctuation, and with the ASCII apostrophe.

    Two texts that are equal after this count as the same sentence.
    """
    return " ".join(_WORD.findall(text.lower())).replace("\u2019", "'").replace("\u02bc", "'")


def vocabulary(language: str) -> list[str]:
    """Return all words of a language's grammar in lower case, each once, sorted.

    Raises ValueError without a grammar.
    """
    texts = (text for options in _grammar(language).values() for text in options)
    return sorted({word for text in texts for word in plain(_SLOT.sub(" ", text)).split()})


def _grammar(language: str) -> Grammar:
    if language not in GRAMMARS:
        raise ValueError(f"the demo has no sentences in {language!r}, only in {', '.join(LANGUAGES)}")
    return GRAMMARS[language]


def _expand(slot: str, grammar: Mapping[str, tuple[str, ...]], rng: random.Random) -> str:
    """Make a text for a slot: choose a random alternative, and fill the slots in it the same way."""
    alternatives = grammar[slot]
    # random() is the only method whose sequence Python promises to keep.
    chosen = alternatives[int(rng.random() * len(alternatives))]
    return _SLOT.sub(lambda inner: _expand(inner[1], grammar, rng), chosen)


def _spell(text: str, language: str, rng: random.Random) -> str:
    """Spell a sentence as a person types it: capital letter, one kind of apostrophe, Belarusian у shortened to ў."""
    apostrophe = APOSTROPHES[int(rng.random() * len(APOSTROPHES))]
    if language == "be":
        text = _SHORT_U.sub("ў", text)
    return (text[0].upper() + text[1:]).replace("'", apostrophe)

"""Unicode forms of a text: spaces, lone surrogates, and the script of a letter."""

import unicodedata
from functools import cache


def single_spaces(text: str) -> str:
    """Join the words of a text with single spaces."""
    return " ".join(text.split())


def as_written(text: str) -> str:
    """Return a text in NFC with single spaces, as orthographic scores compare it."""
    return single_spaces(unicodedata.normalize("NFC", text))


def encodable(text: str) -> str:
    """Replace lone surrogates by U+FFFD. JSON allows them ("\\ud83d"), but UTF-8 cannot encode them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def script_of(character: str) -> str | None:
    """Return the script of a letter, from its Unicode name; None if the character is not a letter.

    Chinese and Japanese characters count as one script.
    """
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "BOPOMOFO") else name

"""Unicode forms of a text: spaces, lone surrogates, and the script of a letter."""

import unicodedata
from functools import cache


def single_spaces(text: str) -> str:
    """Words of the text, separated by one space."""
    return " ".join(text.split())


def as_written(text: str) -> str:
    """The text in NFC with single spaces, as orthographic scores compare it."""
    return single_spaces(unicodedata.normalize("NFC", text))


def encodable(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which JSON allows ("\\ud83d") but UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def script_of(character: str) -> str | None:
    """Script of a letter by its Unicode name; None for a character that is no letter. Japanese and Chinese are one."""
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "BOPOMOFO") else name

"""Scripts that texts are written in."""

import unicodedata
from functools import cache


@cache
def script_of(character: str) -> str | None:
    """The script of a letter by its Unicode name, those of Japanese and Chinese taken as one; None for other signs."""
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "BOPOMOFO") else name

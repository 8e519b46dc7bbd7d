"""Unicode forms of a text: spaces, lone surrogates, and the script of a letter."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u30ff\u3100-\u312f\u31a0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"  # CJK
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"  # rare kana and ideographs
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u19e0-\u19ff"  # Thai, Lao, Burmese, Khmer
)
"""Characters of scripts that are written without spaces between words, as ranges of a regular expression."""
_UNSPACED = re.compile(f"[{UNSPACED}]")
_WORD_SIGN = r"[\w'\u0300-\u036f\u0900-\u0dff]"  # part of a word or number: a letter, digit, apostrophe or mark
_SPACE_OF_NO_WORD = re.compile(f"(?<!{_WORD_SIGN}) | (?!{_WORD_SIGN})|(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")


def single_spaces(text: str) -> str:
    """Join the words of a text with single spaces."""
    return " ".join(text.split())


def as_written(text: str) -> str:
    """Return a text in NFC with single spaces, as orthographic scores compare it."""
    return single_spaces(unicodedata.normalize("NFC", text))


def without_optional_spaces(text: str) -> str:
    """Remove the spaces that scripts without word spaces may or may not have, as the golden normaliser does.

    A space between two words of other scripts, or between two numbers, stays, because it separates them.
    """
    return _SPACE_OF_NO_WORD.sub("", single_spaces(text))


def joint(before: str, after: str) -> str:
    """Return the characters to write between two texts: none within scripts without word spaces, else a space.

    The last letter of the first text and the first letter of the other decide.
    """
    letters = next(filter(str.isalpha, reversed(before)), ""), next(filter(str.isalpha, after), "")
    return "" if all(map(_UNSPACED.fullmatch, letters)) else " "


def joined(texts: Iterable[str]) -> str:
    """Return texts as one text, in their order, with a `joint` between each two."""
    whole = ""
    for text in texts:
        whole += (joint(whole, text) if whole else "") + text
    return whole


def encodable(text: str) -> str:
    """Replace lone surrogates by U+FFFD. JSON allows them ("\\ud83d"), but UTF-8 cannot encode them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def script_of(character: str) -> str | None:
    """Return the script of a letter, from its Unicode name; None if the character is not a letter.

    A script is the first word of the name, such as LATIN; "" for a letter without a name. Chinese and Japanese
    characters count as one script, CJK.
    """
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "BOPOMOFO") else name

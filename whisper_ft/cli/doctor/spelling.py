"""What transcripts are written with, and what seldom belongs in them."""

import re
import unicodedata
from collections.abc import Iterator

from whisper_ft.scoring.unicode_text import script_of

SHOWN_CHARACTERS = 60
ALIKE = ("LATIN", "CYRILLIC", "GREEK")  # scripts with letters that look the same
JOINERS = "\u200c\u200d"  # zero-width, but part of the spelling in other scripts
SUSPECT = ("word of mixed scripts", "control character", "zero-width character", "replacement character")
NOTED = ("digits", "not in the normal form NFC")


def suspicions(text: str) -> Iterator[tuple[str, str]]:
    """(what, the word or the name of the character) of what seldom belongs in a transcript; each kind once."""
    words = text.split()
    for word in re.findall(r"[^\W\d_]+", text):  # of letters: `DVD-дыск` is two
        if len({script for script in map(script_of, word) if script in ALIKE}) > 1:
            yield SUSPECT[0], word
            break
    odd = {character: kind for character in text if (kind := _odd(character))}
    if any(joiner in odd for joiner in JOINERS):
        spelt = [word for word in words if set(word) & set(JOINERS)]
        if not any(script_of(character) in ALIKE for word in spelt for character in word):
            odd = {character: kind for character, kind in odd.items() if character not in JOINERS}
    for kind in SUSPECT[1:]:
        if names := [named(character) for character in odd if odd[character] == kind]:
            yield kind, ", ".join(names)
    if digits := [word for word in words if any(character.isdigit() for character in word)]:
        yield NOTED[0], digits[0]
    if not unicodedata.is_normalized("NFC", text):
        yield NOTED[1], next((word for word in words if not unicodedata.is_normalized("NFC", word)), text)


def _odd(character: str) -> str | None:
    category = unicodedata.category(character)
    if character == "\ufffd":
        return SUSPECT[3]
    return {"Cc": SUSPECT[1], "Cf": SUSPECT[2], "Co": SUSPECT[1], "Cs": SUSPECT[1]}.get(category)


def named(character: str) -> str:
    """`U+200B ZERO WIDTH SPACE`."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()


def letter_of(character: str) -> str:
    """A character as it can be seen: by its name where it cannot, a mark on a circle."""
    if not character.isprintable() or character.isspace():
        return named(character)
    return f"\u25cc{character}" if unicodedata.category(character).startswith("M") else character


def is_odd(character: str) -> bool:
    """True for what is suspicious wherever it stands."""
    return _odd(character) is not None


def shown(text: object, most: int = SHOWN_CHARACTERS) -> str:
    """A text for the screen, not endless."""
    return visible(str(text)) if len(str(text)) <= most else f"{visible(str(text)[:most])}…"


def visible(text: str) -> str:
    """A text on one line, with nothing in it that a terminal would obey or hide."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)

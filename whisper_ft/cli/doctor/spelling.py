"""Search for characters and spellings in transcripts that are probably mistakes."""

import re
import unicodedata
from collections.abc import Iterator

from whisper_ft.reports.text import on_circle, spelled_out
from whisper_ft.scoring.unicode_text import script_of

MAX_CHARACTERS = 60  # characters of an example
ALIKE = ("LATIN", "CYRILLIC", "GREEK")  # scripts with letters that look the same
JOINERS = "\u200c\u200d"  # zero-width, but part of the spelling in other scripts
SUSPECT = ("word of mixed scripts", "control character", "zero-width character", "replacement character")
NOTED = ("digits", "not in the normal form NFC")


def suspicions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kinds of probable mistakes in a transcript, each once, as (kind, the word or name of the character).

    The kinds are those of SUSPECT and then NOTED, in this order.
    """
    words = text.split()
    for word in re.findall(r"[^\W\d_]+", text):  # words of letters: `DVD-дыск` is two
        if len({script for script in map(script_of, word) if script in ALIKE}) > 1:
            yield SUSPECT[0], word
            break
    odd = {character: kind for character in text if (kind := _odd(character))}
    if any(joiner in odd for joiner in JOINERS):
        spelt = [word for word in words if set(word) & set(JOINERS)]
        if not any(script_of(character) in ALIKE for word in spelt for character in word):
            odd = {character: kind for character, kind in odd.items() if character not in JOINERS}
    for kind in SUSPECT[1:]:
        if names := [character_name(character) for character in odd if odd[character] == kind]:
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


def character_name(character: str) -> str:
    """Return code and name of a character: `U+200B ZERO WIDTH SPACE`."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()


def shown_character(character: str) -> str:
    """Return a character in visible form: an invisible character as its name, a combining mark on a circle."""
    if not character.isprintable() or character.isspace():
        return character_name(character)
    return on_circle(character)


def is_odd(character: str) -> bool:
    """Return True for a control, zero-width, private-use or replacement character.

    Joiners count, although some scripts need them; `suspicions` takes the word into account.
    """
    return _odd(character) is not None


def shown(text: object, most: int = MAX_CHARACTERS) -> str:
    """Return the first `most` characters of a text on one line, and an ellipsis if some are left out.

    Control and invisible characters are escaped.
    """
    return spelled_out(str(text)) if len(str(text)) <= most else f"{spelled_out(str(text)[:most])}…"

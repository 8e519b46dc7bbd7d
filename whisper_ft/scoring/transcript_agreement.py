"""Agreement of two transcripts of the same speech, by their letters and digits alone."""

import unicodedata

from rapidfuzz.distance import Levenshtein

from whisper_ft.scoring.unicode_text import encodable


def letters_of(text: str) -> str:
    """Return the letters, marks and digits of a text, case-folded in NFC, without anything between them.

    Case, punctuation and spaces differ between models, and say nothing about the words.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", encodable(text)).casefold())
    return "".join(sign for sign in folded if unicodedata.category(sign)[0] in "LMN")


def disagreement(first: str, second: str) -> float:
    """Return the edit distance of two texts in letters, divided by the length of the longer one: from 0 to 1.

    Two texts without letters agree.
    """
    return float(Levenshtein.normalized_distance(*map(letters_of, (first, second))))

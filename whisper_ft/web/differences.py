"""Texts of two models side by side, with their differences marked."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rapidfuzz.distance import Levenshtein

from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.edit_distance import count_errors
from whisper_ft.scoring.unicode_text import UNSPACED

MAX_TOKENS = 20_000
"""Most words of a text: two hours of speech. The alignment takes 100 MB for two such texts."""
_TOKEN = re.compile(rf"\s*(?:[{UNSPACED}]|[^\s{UNSPACED}]+)")

DifferenceKind = Literal["same", "spelling", "changed", "first_only", "second_only"]


@dataclass(frozen=True)
class Stretch:
    """Successive words of both texts, as written, with their spaces.

    `spelling` means words that differ in case or punctuation only. The parts of all stretches make up the texts.
    """

    kind: DifferenceKind
    first: str
    second: str


def difference_summary(first: str, second: str) -> dict[str, Any]:
    """Return the stretches of two texts, and the number of words that differ, as JSON values.

    `changed` counts substituted, missing and added words; `words` are those of the first text. A character is a word in
    scripts without spaces. Case and punctuation count as no change. Raises UsageError for more than MAX_TOKENS words.
    """
    left, right = _tokens(first), _tokens(second)
    keys = [_folded(token) for token in left], [_folded(token) for token in right]
    spoken = [key for key in keys[0] if key], [key for key in keys[1] if key]
    stretches = _stretches((left, right), keys)
    return {
        "stretches": [asdict(stretch) for stretch in stretches],
        "changed": count_errors(*spoken).errors,
        "words": len(spoken[0]),
    }


def _tokens(text: str) -> list[str]:
    tokens = _TOKEN.findall(text.rstrip())
    if len(tokens) > MAX_TOKENS:
        raise UsageError(f"a text has {counted(len(tokens), 'word')}; texts of up to {MAX_TOKENS:,} are compared")
    return tokens


def _folded(token: str) -> str:
    """Return a word in lower case without punctuation; empty for punctuation alone."""
    folded = unicodedata.normalize("NFKC", token).casefold()
    return "".join(sign for sign in folded if sign.isalnum() or unicodedata.category(sign).startswith("M"))


def _stretches(tokens: tuple[list[str], list[str]], keys: tuple[list[str], list[str]]) -> list[Stretch]:
    stretches: list[Stretch] = []
    for edit in Levenshtein.opcodes(*keys):
        left, right = tokens[0][edit.src_start : edit.src_end], tokens[1][edit.dest_start : edit.dest_end]
        if edit.tag == "equal":
            stretches += _equal_words(left, right)
        else:
            kind: DifferenceKind = "changed" if left and right else "first_only" if left else "second_only"
            stretches.append(Stretch(kind, "".join(left), "".join(right)))
    return _joined(stretches)


def _equal_words(left: Sequence[str], right: Sequence[str]) -> list[Stretch]:
    return [
        Stretch("same" if first.strip() == second.strip() else "spelling", first, second)
        for first, second in zip(left, right, strict=True)
    ]


def _joined(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Join neighbours of one kind, and punctuation that only one text has to `spelling`."""
    joined: list[Stretch] = []
    for stretch in stretches:
        is_sign = stretch.kind != "same" and not _folded(stretch.first) and not _folded(stretch.second)
        kind: DifferenceKind = "spelling" if is_sign else stretch.kind
        if joined and joined[-1].kind == kind:
            last = joined.pop()
            stretch = Stretch(kind, last.first + stretch.first, last.second + stretch.second)
        joined.append(Stretch(kind, stretch.first, stretch.second))
    return joined

"""Label of a window: the texts that are said in it, each with its times, and the tokens that are learned for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

TIMES_PER_SECOND = 50
"""Timestamp tokens for each second of audio: they are 0.02 s apart."""
LAST_TIME = 30 * TIMES_PER_SECOND
"""Last timestamp, 30.00 s. Whisper has no later ones."""


@dataclass(frozen=True)
class PlacedText:
    """One text in a window, with its times in steps of 0.02 s from the start of the window."""

    text: str
    """Text as it is learned: stripped and normalised."""
    begin: int
    end: int | None
    """None if the speech goes on after the end of the window. Then only its start time is written, not its text."""


class WindowLabel(NamedTuple):
    """Tokens of a window, and the index of the first token that the decoder learns to predict."""

    tokens: list[int]
    first_target: int


def monotone(texts: Sequence[PlacedText], last: int) -> list[PlacedText]:
    """Return the texts with times that never go back and lie within 0 to `last`, the last timestamp of a window.

    A text that begins after `last` or before an earlier one ends is moved by as much. Only the final text may lack an
    end; another one without an end is left out.
    """
    moved, free = list[PlacedText](), 0
    for number, text in enumerate(texts, start=1):
        if text.end is None and number < len(texts):
            continue
        begin = min(max(text.begin, free), last)
        end = None if text.end is None else min(max(text.end, begin), last)
        moved.append(PlacedText(text.text, begin, end))
        free = begin if end is None else end
    return moved

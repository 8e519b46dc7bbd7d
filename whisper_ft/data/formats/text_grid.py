"""TextGrid files of Praat, in the long and the short text form: tiers of intervals with texts.

Praat reads a text file as a sequence of numbers, quoted texts and flags. Everything else, such as `xmin =`, is comment
(https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html). So both forms are the same sequence.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from whisper_ft.data.formats.cues import TimedSpeech
from whisper_ft.data.types import RejectedError

INTERVALS, POINTS = "IntervalTier", "TextTier"
_TOKEN = re.compile(r'"[^"]*(?:""[^"]*)*"|"|![^\n]*|[^\s"]+')
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?", re.ASCII)
_HEADER = re.compile(r'\s*(?:File type\s*=\s*)?"ooTextFile')
_EXISTS, _ABSENT = "<exists>", "<absent>"


class Tier(NamedTuple):
    """Tier of intervals that follow each other."""

    name: str
    intervals: list[TimedSpeech]
    """Intervals with a text. The others are silence."""


def read_tiers(text: str) -> list[Tier]:
    """Return the tiers of intervals of a TextGrid; tiers of points are left out.

    Raises RejectedError(bad_label), with the number of the line, for any other text.
    """
    tokens = _Tokens(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not _HEADER.match(text):
        raise tokens.refusal("is no TextGrid; save it by Praat's command Save as text file")
    tokens.text("the kind of file")
    if (kind := tokens.text("the class")) != "TextGrid":
        raise tokens.refusal(f"{kind[:40]!r} should be TextGrid")
    tokens.number("a time")
    tokens.number("a time")
    tiers = []
    for _ in range(tokens.count("the number of tiers") if tokens.flag() else 0):
        kind = tokens.text("the class of a tier")
        if kind not in (INTERVALS, POINTS):
            raise tokens.refusal(f"{kind[:40]!r} is no class of a tier, which is {INTERVALS} or {POINTS}")
        name = tokens.text("the name of a tier")
        tokens.number("a time")
        tokens.number("a time")
        parts = [_part(tokens, kind) for _ in range(tokens.count("the number of parts"))]
        if kind == INTERVALS:
            tiers.append(Tier(" ".join(name.split()), [part for part in parts if part.text]))
    return tiers


def _part(tokens: "_Tokens", kind: str) -> TimedSpeech:
    start = tokens.number("a time")
    line = tokens.line
    end = tokens.number("a time") if kind == INTERVALS else start
    return TimedSpeech(start, end, " ".join(tokens.text("a text").split()), line)


class _Tokens:
    """Sequence of the numbers, texts and flags of a file, with the line of the token that was read last."""

    def __init__(self, text: str) -> None:
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._tokens: Iterator[re.Match[str]] = filter(_is_read, _TOKEN.finditer(text))
        self._place = 0

    @property
    def line(self) -> int:
        return bisect_right(self._line_ends, self._place) + 1

    def refusal(self, detail: str) -> RejectedError:
        return RejectedError("bad_label", f"line {self.line}: {detail}")

    def text(self, name: str) -> str:
        token = self._next(name)
        if len(token) < 2 or not token.startswith('"'):
            raise self.refusal(f"{token[:40]!r} stands in the place of {name}, a text between quotation marks")
        return token[1:-1].replace('""', '"')

    def number(self, name: str) -> float:
        token = self._next(name)
        if not _NUMBER.fullmatch(token) or not math.isfinite(float(token)):
            raise self.refusal(f"{token[:40]!r} stands in the place of {name}, a number")
        return float(token)

    def count(self, name: str) -> int:
        return max(int(self.number(name)), 0)

    def flag(self) -> bool:
        return self._next("<exists>") == _EXISTS

    def _next(self, name: str) -> str:
        token = next(self._tokens, None)
        if token is None:
            self._place = self._line_ends[-1] if self._line_ends else 0
            raise self.refusal(f"ends before {name}")
        self._place = token.start()
        return token[0]


def _is_read(token: re.Match[str]) -> bool:
    """True for a number, a text or a flag; False for the words between them, which are comments."""
    return token[0].startswith('"') or token[0] in (_EXISTS, _ABSENT) or bool(_NUMBER.fullmatch(token[0]))

"""Subtitles: timed texts laid out as cues of at most two lines, cut at phrases, whose times never overlap."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from whisper_ft.scoring.unicode_text import UNSPACED

LINE_WIDTH = 42
"""Widest line, in characters, as the guides of broadcasters ask; a wide East Asian character counts as two."""
LINES = 2
PAUSE_SECONDS = 2.0
"""Silence between two words after which a new cue begins."""
LEAST_SECONDS = 1.0
"""Shortest time that a cue is shown, if the next one does not begin earlier."""
FEWEST_SHARE = 1 / 3
"""Least width of a cue, as a share of two lines, at which it may end before it is full, after punctuation."""

_SENTENCE_END = re.compile(r"[.?!…。！？｡।॥؟۔։]+[\"'»”’)\]」』）]*$")
_CLAUSE_END = re.compile(r"[,;:–—،؛、，；：)\]」』）»”]$")
_UNSPACED = re.compile(f"[{UNSPACED}\u3000-\u3004\uff00-\uff65]")
_OPENING = frozenset("([{«“‘「『（【〈《")
_PRECEDING_VOWELS = frozenset("\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4")  # of Thai and Lao
_JOINER = "\u200d"


class TimedText(NamedTuple):
    """Text with the time in which it is spoken, in seconds of the recording."""

    start: float
    end: float
    text: str


class Cue(NamedTuple):
    """Subtitle on the screen, with times in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]
    text: str
    """Text of all lines, as the phrase has it."""
    phrase: int
    """Index of the phrase of which it is a part."""


class _Atom(NamedTuple):
    """Smallest part of a text: no line ends within it."""

    text: str
    has_space: bool
    """True if a space stands before it, which a line end replaces."""
    start: float
    end: float

    @property
    def width(self) -> int:
        return width_of(self.text)


def width_of(text: str) -> int:
    """Return the width of a text: two for a wide East Asian character, one for any other code point."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def cues_of(phrases: Sequence[tuple[TimedText, Sequence[TimedText]]], seconds: float) -> list[Cue]:
    """Lay out phrases as cues. No cue holds parts of two phrases.

    Parameters
        phrases: phrases in their order, each with its words. Without words, or with words of another text, the time
            of a phrase is shared out by the width of its parts.
        seconds: length of the recording; no cue ends after it.
    """
    parts = list[tuple[int, Sequence[_Atom]]]()
    for number, (phrase, words) in enumerate(phrases):
        for atoms in _split_at_pauses(_atoms(phrase, words)):
            begin = 0
            while begin < len(atoms):
                end = _end_of_cue(atoms, begin)
                parts.append((number, atoms[begin:end]))
                begin = end
    times = _in_order([(part[0].start, part[-1].end) for _, part in parts], round(1000 * seconds))
    return [
        Cue(start, end, _lines(part), _text(part), number)
        for (start, end), (number, part) in zip(times, parts, strict=True)
    ]


def _atoms(phrase: TimedText, words: Sequence[TimedText]) -> list[_Atom]:
    """Cut a phrase into atoms, and give each of them its time."""
    parts = [
        (part, number == 0)
        for token in phrase.text.split()
        for number, part in enumerate(piece for whole in _breakable(token) for piece in _narrow(whole))
    ]
    if _unspaced(word.text for word in words) != _unspaced([phrase.text]):
        words = [phrase]
    times = _character_times(words)
    atoms, at = [], 0
    for text, has_space in parts:
        atoms.append(_Atom(text, has_space, times[at][0], times[at + len(text) - 1][1]))
        at += len(text)
    return atoms


def _unspaced(texts: Iterator[str] | Sequence[str]) -> str:
    return "".join("".join(text.split()) for text in texts)


def _character_times(words: Sequence[TimedText]) -> list[tuple[float, float]]:
    """Return the time of each character but spaces; a word's time is shared out by width."""
    times = []
    for word in words:
        letters = _unspaced([word.text])
        total, before = max(width_of(letters), 1), 0
        length = max(word.end - word.start, 0.0)
        for letter in letters:
            after = before + width_of(letter)
            times.append((word.start + length * before / total, word.start + length * after / total))
            before = after
    return times


def _breakable(token: str) -> Iterator[str]:
    """Cut a text without spaces where its script allows a line end: between characters of unspaced scripts.

    Closing punctuation stays with the character before it, and opening brackets with the one after.
    """
    part = ""
    for cluster in _clusters(token):
        is_free = bool(part) and bool(_UNSPACED.match(cluster) or _UNSPACED.match(part[-1]))
        is_closing = unicodedata.category(cluster[0]) in ("Pe", "Pf", "Po", "Pd", "Lm") and cluster[0] not in _OPENING
        if is_free and not is_closing and part[-1] not in _OPENING:
            yield part
            part = ""
        part += cluster
    if part:
        yield part


def _clusters(token: str) -> Iterator[str]:
    """Cut a text into characters as they are seen: a letter with its marks, or signs that are joined to one."""
    cluster = ""
    for letter in token:
        is_mark = unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf", "Sk")
        if cluster and not is_mark and cluster[-1] != _JOINER and cluster[-1] not in _PRECEDING_VOWELS:
            yield cluster
            cluster = ""
        cluster += letter
    if cluster:
        yield cluster


def _narrow(token: str) -> Iterator[str]:
    """Cut a text that is wider than a line, such as an address or a loop, between any two characters."""
    part = ""
    for cluster in _clusters(token) if width_of(token) > LINE_WIDTH else [token]:
        for piece in cluster if width_of(cluster) > LINE_WIDTH else [cluster]:
            if part and width_of(part + piece) > LINE_WIDTH:
                yield part
                part = ""
            part += piece
    yield part


def _split_at_pauses(atoms: Sequence[_Atom]) -> Iterator[Sequence[_Atom]]:
    begin = 0
    for place in range(1, len(atoms)):
        if atoms[place].start - atoms[place - 1].end >= PAUSE_SECONDS:
            yield atoms[begin:place]
            begin = place
    yield atoms[begin:]


def _text(atoms: Sequence[_Atom]) -> str:
    return "".join((" " if number and atom.has_space else "") + atom.text for number, atom in enumerate(atoms))


def _end_of_line(atoms: Sequence[_Atom], begin: int) -> int:
    """Return the end of the longest line that begins with an atom."""
    width, end = atoms[begin].width, begin + 1
    while end < len(atoms) and width + atoms[end].has_space + atoms[end].width <= LINE_WIDTH:
        width += atoms[end].has_space + atoms[end].width
        end += 1
    return end


def _last_that_fits(atoms: Sequence[_Atom], begin: int) -> int:
    for _ in range(LINES):
        begin = _end_of_line(atoms, begin) if begin < len(atoms) else begin
    return begin


def _end_of_cue(atoms: Sequence[_Atom], begin: int) -> int:
    """Return the end of the cue that begins with an atom.

    A cue ends with its phrase, after the last sentence or clause in it, or where two cues have about equal widths.
    """
    last = _last_that_fits(atoms, begin)
    if last == len(atoms):
        return last
    widths = {end: width_of(_text(atoms[begin:end])) for end in range(begin + 1, last + 1)}
    enough = [end for end, width in widths.items() if width >= FEWEST_SHARE * LINES * LINE_WIDTH]
    for pattern in (_SENTENCE_END, _CLAUSE_END):
        if ends := [end for end in enough if pattern.search(atoms[end - 1].text)]:
            return ends[-1]
    spaced = [end for end in widths if atoms[end].has_space] or list(widths)
    if fitting := [end for end in spaced if _last_that_fits(atoms, end) == len(atoms)]:
        half = width_of(_text(atoms[begin:])) / 2
        return min(fitting, key=lambda end: abs(widths[end] - half))
    return spaced[-1] if spaced[-1] in enough else last


def _lines(atoms: Sequence[_Atom]) -> tuple[str, ...]:
    """Break a cue into lines: after punctuation near the middle, else at the space nearest to it."""
    if width_of(whole := _text(atoms)) <= LINE_WIDTH:
        return (whole,)
    pairs = [(atoms[place - 1].text, _text(atoms[:place]), _text(atoms[place:])) for place in range(1, len(atoms))]
    fitting = [pair for pair in pairs if max(width_of(pair[1]), width_of(pair[2])) <= LINE_WIDTH]

    def unevenness(pair: tuple[str, str, str]) -> float:
        last, above, below = pair
        is_phrase = _SENTENCE_END.search(last) or _CLAUSE_END.search(last)
        return abs(width_of(above) - width_of(below)) - (LINE_WIDTH / 2 if is_phrase else 0)

    _, above, below = min(fitting, key=unevenness)
    return above, below


def _in_order(times: Sequence[tuple[float, float]], most: int) -> list[tuple[int, int]]:
    """Turn starts and ends into milliseconds so that no cue is empty, overlaps another, or ends after `most`.

    A recording shorter than a millisecond for each cue leaves some of them empty.
    """
    starts, ends, latest = [], [], 0
    for start, end in times:
        starts.append(max(round(1000 * start), latest))
        latest = max(round(1000 * end), starts[-1] + 1)
        ends.append(latest)
    following = most
    for place in reversed(range(len(times))):
        shown = max(ends[place], starts[place] + round(1000 * LEAST_SECONDS))
        ends[place] = max(min(shown if ends[place] <= following else following, following), 0)
        starts[place] = max(min(starts[place], ends[place] - 1), 0)
        following = starts[place]
    return list(zip(starts, ends, strict=True))

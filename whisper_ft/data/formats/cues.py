"""Cues of subtitle files, SubRip (.srt) and WebVTT (.vtt), as real programs write them.

A file that begins with WEBVTT follows that standard (https://www.w3.org/TR/webvtt1). Any other file is SubRip, which
has none: a counter, the times, then lines of text.
"""

import html
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from whisper_ft.data.types import RejectedError

ARROW = "-->"
_CLOCK = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*{ARROW}\s*{_CLOCK}(?:\s.*)?", re.ASCII)
_ALMOST_TIMES = re.compile(r"\s{0,9}-?\d+:\d\d?[:.,]\S{0,9}\s{0,9}\W{1,9}-?\d+:\d\d?[:.,]")
"""Line that should be times: two clocks, with anything between them."""
_NO_CUE = re.compile(r"(NOTE|STYLE|REGION|WEBVTT)(?:\s|$)")
"""First words of the blocks of WebVTT that are no cues. Joined files have several headers."""
_MOMENT = re.compile(r"<\d[\d:.]*>")
"""Time of a word within a cue. Only captions that scroll have it, and they repeat the line before."""
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]{1,200})>")
_READING = re.compile(r"<(r[tp])\b[^<>]*>[^<]*</\1>", re.IGNORECASE)  # how to read a character, beside the character
_TAG = re.compile(rf"</?(?:b|i|u|s|c|v|lang|ruby|r[tp]|font|span)(?=[\s.>])[^<>]*>|{_MOMENT.pattern}", re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>|\\[Nnh]", re.IGNORECASE)
_STYLE = re.compile(r"\{\\[^{}]*\}")  # of Advanced SubStation, such as {\an8}
_ENTITY = re.compile(r"&(?:#\d+|#[xX][\da-fA-F]+|\w+);")
FEW_CUES, MOST = 6, 0.5
"""Fewest cues of a file, and the share of them from which on a habit of its program is assumed."""
MAX_SHOWN_CHARACTERS = 40


class TimedSpeech(NamedTuple):
    """Text and the time in which it is said, in seconds of the recording."""

    start: float
    end: float
    text: str
    """Text in one line."""
    line: int
    """Number of the line with the times, counted from 1."""
    speaker: str | None = None


class _Block(NamedTuple):
    """Cue as it stands in the file."""

    start: float
    end: float
    lines: Sequence[str]
    line: int


def read_cues(text: str) -> list[TimedSpeech]:
    """Return the cues of a subtitle file by their start, without tags. A cue without text or like another is left out.

    Times may lack hours or fractions, and have a comma or a point. Cues may overlap, or end before they begin. If most
    cues overlap, each ends where the next begins.

    Raises RejectedError(bad_label), with the number of the line, for a text that is no subtitle file.
    """
    lines = re.split(r"\r\n|\r|\n", text.replace("\ufeff", ""))
    blocks = list(_webvtt(lines) if lines[0].startswith("WEBVTT") else _subrip(lines))
    if not blocks:
        raise RejectedError("bad_label", f"line {len(lines)}: ends without a cue")
    if _scrolls(blocks):
        blocks = list(_unscrolled(blocks))
    once = {(cue.start, cue.end, cue.text): cue for cue in map(_speech, blocks) if cue.text}
    return _until_next(sorted(once.values(), key=lambda cue: cue.start))


def _subrip(lines: Sequence[str]) -> Iterator[_Block]:
    """Yield the cues of SubRip. Empty lines within a text belong to it; a counter may be missing."""
    places = [number for number, line in enumerate(lines) if _is_times(line)]
    before = [number for number, line in enumerate(lines[: places[0]] if places else lines) if line.strip()]
    has_counters = bool(places and before and lines[before[-1]].strip().isdecimal())
    if odd := before[:-1] if has_counters else before:
        raise _refusal(odd[0], lines, "is not the number or the times of a cue")
    for place, following in zip(places, [*places[1:], len(lines)], strict=False):
        said = list(lines[place + 1 : following])
        while said and not said[-1].strip():
            said.pop()
        if has_counters and following < len(lines) and said and said[-1].strip().isdecimal():
            said.pop()
        yield _block(place, lines, said)


def _webvtt(lines: Sequence[str]) -> Iterator[_Block]:
    """Yield the cues of WebVTT, whose blocks are separated by empty lines. Settings of a cue are left out."""
    first = 0
    for end in (number for number, line in enumerate([*lines, ""]) if not line):
        block, begin, first = range(first, end), first, end + 1
        keyword = _NO_CUE.match(lines[begin]) if block else None
        places = [] if keyword and keyword[1] == "NOTE" else [number for number in block if _is_times(lines[number])]
        if block and not keyword and (not places or places[0] > begin + 1):
            raise _refusal(begin, lines, "is neither a cue nor a note")
        for place, following in zip(places, [*places[1:], end], strict=False):
            said = lines[place + 1 : following]
            is_counted = following < end and said and said[-1].strip().isdecimal()
            yield _block(place, lines, said[:-1] if is_counted else said)


def _is_times(line: str) -> bool:
    return ARROW in line or bool(_ALMOST_TIMES.match(line))


def _block(place: int, lines: Sequence[str], said: Sequence[str]) -> _Block:
    times = _TIMES.fullmatch(lines[place])
    if times is None:
        raise _refusal(place, lines, "should be times such as 00:01:02,500 --> 00:01:04,000")
    return _Block(_seconds(times.groups()[:4]), _seconds(times.groups()[4:]), said, place + 1)


def _seconds(clock: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = clock
    return round(3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0) + float(f"0.{fraction or 0}"), 3)


def _refusal(number: int, lines: Sequence[str], reason: str) -> RejectedError:
    return RejectedError("bad_label", f"line {number + 1}: {lines[number].strip()[:MAX_SHOWN_CHARACTERS]!r} {reason}")


def _scrolls(blocks: Sequence[_Block]) -> bool:
    """True for captions that scroll: words have times, or most cues begin with the last line of the cue before.

    Many of these add a line to it. Cues that are merely alike do not scroll, because people repeat themselves.
    """
    if any(_MOMENT.search(line) for block in blocks for line in block.lines):
        return True
    shown = [list(filter(None, map(_plain, block.lines))) for block in blocks]
    repeating = [lines for before, lines in pairwise(shown) if before and lines and before[-1] == lines[0]]
    is_most = len(blocks) >= FEW_CUES and len(repeating) > MOST * len(blocks)
    return is_most and sum(len(lines) > 1 for lines in repeating) > len(repeating) / 4


def _unscrolled(blocks: Sequence[_Block]) -> Iterator[_Block]:
    """Yield the cues of captions that scroll, without the lines that stood in the cue before."""
    shown: set[str] = set()
    for block in blocks:
        yield block._replace(lines=[line for line in block.lines if _plain(line) not in shown])
        shown = {_plain(line) for line in block.lines}


def _until_next(cues: list[TimedSpeech]) -> list[TimedSpeech]:
    """Return the cues, with their ends cut at the next start if most of them are shown on while the next one begins.

    Speech does not overlap so often. In other files an overlap stays, because two people may speak at a time.
    """
    followed = [*pairwise(cues)]
    is_shown_on = [cue.start < later.start < cue.end for cue, later in followed]
    if len(cues) < FEW_CUES or sum(is_shown_on) <= MOST * len(cues):
        return cues
    cut = [cue._replace(end=later.start) if on else cue for (cue, later), on in zip(followed, is_shown_on, strict=True)]
    return [*cut, cues[-1]]


def _speech(block: _Block) -> TimedSpeech:
    whole = " ".join(block.lines)
    voices = {" ".join(name.split()) for name in _VOICE.findall(whole)}
    speaker = html.unescape(voices.pop()) if len(voices) == 1 else None
    return TimedSpeech(block.start, block.end, _plain(whole), block.line, speaker)


def _plain(text: str) -> str:
    """Return a text without tags and styles, with its entities as characters, and with single spaces."""
    text = _BREAK.sub(" ", _STYLE.sub("", text))
    text = _TAG.sub("", _READING.sub("", text))
    return " ".join(_ENTITY.sub(lambda entity: html.unescape(entity[0]), text).split())

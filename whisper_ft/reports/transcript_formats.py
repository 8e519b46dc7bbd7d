"""Transcript of a recording in the formats of its files: txt, srt, vtt, tsv and json."""

import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whisper_ft.reports.subtitles import Cue, TimedText, cues_of
from whisper_ft.runtime.printable import json_text
from whisper_ft.scoring.unicode_text import encodable, single_spaces

_ARROW = re.compile("-{2,}>")


@dataclass(frozen=True)
class SpokenWord:
    """Word as written, with the space before it, and its time in seconds of the recording."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """Part of a transcript: a phrase to which the model gave times, or else the text of a window."""

    start: float
    """In seconds of the recording."""
    end: float
    text: str
    avg_logprob: float | None
    """Mean log-probability of its tokens; None if it is not finite."""
    no_speech_prob: float | None
    """Probability of its window that nobody speaks; None if the model has no token for that."""
    compression_ratio: float
    """Ratio of its window's text, high for a text that repeats itself."""
    temperature: float
    words: tuple[SpokenWord, ...] | None = None
    """None if word times were not requested."""


@dataclass(frozen=True)
class Transcript:
    """Transcript of a recording."""

    file: str
    seconds: float
    model: str
    language: str | None
    text: str
    segments: Sequence[Segment]
    problem: str | None = None
    """Reason for which the recording could not be read to its end."""


def written(transcript: Transcript, form: str) -> Iterator[str]:
    """Yield the lines of a file in a format of `FORMATS`, each with its line feed."""
    return (encodable(line) for line in FORMATS[form](transcript))


def _txt(transcript: Transcript) -> Iterator[str]:
    yield f"{transcript.text}\n"


def _srt(transcript: Transcript) -> Iterator[str]:
    for number, cue in enumerate(_cues(transcript), 1):
        # An arrow in a text would be read as that of the times; openai-whisper replaces it, too.
        lines = [_ARROW.sub("->", line) for line in cue.lines]
        yield f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n"
        yield from (f"{line}\n" for line in [*lines, ""])


def _vtt(transcript: Transcript) -> Iterator[str]:
    yield "WEBVTT\n"
    for cue in _cues(transcript):
        yield f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        yield from (f"{html.escape(line, quote=False)}\n" for line in cue.lines)


def _tsv(transcript: Transcript) -> Iterator[str]:
    """Yield a line for each segment, with times in milliseconds, as openai-whisper writes them."""
    yield "start\tend\ttext\n"
    for segment in transcript.segments:
        yield f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{single_spaces(segment.text)}\n"


def _json(transcript: Transcript) -> Iterator[str]:
    """Yield everything that is known, under the names that openai-whisper uses for it."""
    value = {
        "file": transcript.file,
        "duration": round(transcript.seconds, 3),
        "language": transcript.language,
        "model": transcript.model,
        "text": transcript.text,
        "segments": [segment_record(number, segment) for number, segment in enumerate(transcript.segments)],
    }
    yield json_text(value | ({"problem": transcript.problem} if transcript.problem else {}), indent=1) + "\n"


def segment_record(number: int, segment: Segment) -> dict[str, Any]:
    """Return a segment as JSON values, under the names that openai-whisper uses."""
    record = {
        "id": number,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "avg_logprob": _rounded(segment.avg_logprob, 4),
        "no_speech_prob": _rounded(segment.no_speech_prob, 6),
        "compression_ratio": round(segment.compression_ratio, 4),
        "temperature": segment.temperature,
    }
    words = None if segment.words is None else [_word_record(word) for word in segment.words]
    return record if words is None else record | {"words": words}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _word_record(word: SpokenWord) -> dict[str, Any]:
    probability = round(word.probability, 4)
    return {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3), "probability": probability}


FORMATS: dict[str, Callable[[Transcript], Iterable[str]]] = {
    "txt": _txt, "srt": _srt, "vtt": _vtt, "json": _json, "tsv": _tsv,
}  # fmt: skip
"""Function that yields the lines of a file, by the extension of the format."""


def phrases_of(transcript: Transcript) -> list[Segment]:
    """Cut the segments into phrases of at most two lines, at the places and times of the subtitles.

    Figures of a phrase are those of its segment. Words are left out.
    """
    return [
        replace(transcript.segments[cue.phrase], start=cue.start / 1000, end=cue.end / 1000, text=cue.text, words=None)
        for cue in _cues(transcript)
    ]


def _cues(transcript: Transcript) -> list[Cue]:
    phrases = [
        (
            TimedText(segment.start, segment.end, segment.text),
            [TimedText(word.start, word.end, word.text) for word in segment.words or ()],
        )
        for segment in transcript.segments
    ]
    return cues_of(phrases, transcript.seconds)


def _clock(milliseconds: int, sign: str) -> str:
    """Return a time such as 01:02:03,004."""
    seconds, thousandths = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{sign}{thousandths:03}"
